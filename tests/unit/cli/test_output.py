# SPDX-License-Identifier: Apache-2.0
"""Results on standard output, everything else on standard error, and an exit status."""

from __future__ import annotations

import json
import subprocess
import sys

from intergiro_provider.cli.findings import Finding, by_time, findings_data, findings_text, looked_at
from intergiro_provider.cli.output import ago, moment, table
from intergiro_provider.exceptions import StoreUnavailable

NOISY = """
import logging, os, sys
from argparse import Namespace
from intergiro_provider.cli.output import Result, command
from intergiro_provider.exceptions import BankUnavailable

early = logging.StreamHandler(sys.stdout)
logging.getLogger().addHandler(early)

@command
def work(args):
    print("printed")
    logging.getLogger("x").warning("logged")
    os.write(1, b"written\\n")
    if "fail" in sys.argv:
        raise BankUnavailable("Not now.")
    return Result({"a": 1}, "for people", failed="wrong" in sys.argv)

work(Namespace(output=sys.argv[1]))
"""


def noisy(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", NOISY, *words], capture_output=True, text=True, check=False)


def test_nothing_but_the_result_is_on_standard_output() -> None:
    done = noisy("json")
    assert (json.loads(done.stdout), done.returncode) == ({"a": 1}, 0)
    for noise in ("printed", "logged", "written"):
        assert noise in done.stderr


def test_something_wrong_shows_in_the_exit_status() -> None:
    done = noisy("text", "wrong")
    assert (done.stdout, done.returncode) == ("for people\n", 1)


def test_an_error_is_one_line_without_a_traceback() -> None:
    done = noisy("json", "fail")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.splitlines()[-1] == "BankUnavailable: Not now."
    assert "Traceback" not in done.stderr


def test_a_table_wraps_its_last_column_and_keeps_brackets() -> None:
    rows = [("ok", "short", "word " * 90), ("WARNING", "longer_name", "[core] fernet_key\n→ :smile:"), ("ok", "x", "")]
    lines = table(rows).splitlines()
    assert max(map(len, lines)) <= 200
    assert {line.index("word") for line in lines if "word" in line} == {len("WARNING  longer_name  ")}
    assert lines[-3:] == ["WARNING  longer_name  [core] fernet_key", " " * 22 + "→ :smile:", "ok       x"]


def test_times_for_scripts_and_for_people() -> None:
    assert moment(0.0) is None
    assert moment(1767225600.4) == "2026-01-01T00:00:00Z"
    assert [ago(s) for s in (-3, 0, 119, 121, 7300, 400000)] == [
        "just now", "0 s ago", "119 s ago", "2 min ago", "2 h ago", "5 d ago",
    ]  # fmt: skip


def test_times_near_their_limit_are_a_warning() -> None:
    assert [by_time(took, 2.0) for took in (0.9, 1.1, 2.1)] == ["ok", "warning", "error"]


def test_a_look_that_fails_is_a_finding_that_does_not_quote_the_cause() -> None:
    def known() -> Finding:
        raise StoreUnavailable("The Variable cannot be read.")

    def unknown() -> Finding:
        raise RuntimeError("postgres://user:secret@host")

    assert looked_at("a", known) == Finding("a", "error", "The Variable cannot be read.")
    assert looked_at("a", unknown) == Finding("a", "error", "This could not be checked (RuntimeError).")


def test_findings_for_scripts_have_the_same_keys() -> None:
    findings = [Finding("a", "ok", "Fine."), Finding("b", "error", "Bad.", "Fix it.")]
    assert findings_data(findings) == [
        {"what": "a", "state": "ok", "finding": "Fine.", "remedy": None},
        {"what": "b", "state": "error", "finding": "Bad.", "remedy": "Fix it."},
    ]
    assert findings_text(findings) == "ok     a  Fine.\nERROR  b  Bad.\n          → Fix it."
