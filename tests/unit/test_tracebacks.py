# SPDX-License-Identifier: Apache-2.0
"""The traceback of an error that leaves an operator."""

from __future__ import annotations

import logging
import traceback

import pytest

from intergiro_provider.exceptions import BankUnavailable, IntergiroError, IntergiroValueError
from intergiro_provider.tracebacks import message_only


class Task:
    log = logging.getLogger("test.tracebacks")

    @message_only
    def execute(self, error: Exception | None) -> str:
        """Do the work."""
        if error is None:
            return "done"
        try:
            raise OSError("the reason")
        except OSError as reason:
            raise error from reason


@pytest.mark.parametrize("error", [BankUnavailable("Wait, then try again."), IntergiroValueError("Change it.")])
def test_the_message_is_what_a_traceback_ends_with(error: IntergiroError, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "test.tracebacks")
    with pytest.raises(type(error)) as caught:
        Task().execute(error)

    assert caught.value is error
    frames = traceback.extract_tb(error.__traceback__)[1:]
    assert [frame.filename for frame in frames] == ["<intergiro>", "<intergiro>"]
    assert frames[-1].name == f"{type(error).__name__}: {error}"
    text = "".join(traceback.format_exception(error))
    assert "the reason" not in text
    assert text.rstrip().endswith(str(error))
    assert "the reason" in caplog.text
    assert "in execute" in caplog.text


def test_other_errors_and_results_pass_as_they_are() -> None:
    assert Task().execute(None) == "done"
    assert Task.execute.__doc__ == "Do the work."
    with pytest.raises(KeyError) as caught:
        Task().execute(KeyError("x"))
    assert isinstance(caught.value.__cause__, OSError)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].filename == __file__
