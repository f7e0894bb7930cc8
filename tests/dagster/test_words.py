# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from dagster_intergiro.words import in_dagsters_words
from intergiro_provider.exceptions import IntergiroServerError
from tests.dagster.conftest import ROOT

SHARED = ROOT / "intergiro_provider"
FOREIGN = re.compile(r"\b(Airflow|Variables?|lock_conn_id|[Cc]onnection (\{|')|connection's|DAG|[Tt]ask)\b")
#: Messages that no run in Dagster can raise: about hidden Variables and `lock_conn_id`.
UNREACHABLE = {"shadowed", "lock_mismatch", "store_too_slow", "_unavailable", "_open", "open_lock", "ended", "__init__"}
ROOMS = ("api", "pull", "session")
AIRFLOWS_OWN = {"store.py", "redis_lock.py", "locks.py", "airflow_locks.py", "location.py"}


def messages() -> Iterator[tuple[str, str]]:
    """Return every string of the shared packages that is longer than a few words and is not a docstring."""
    paths = [path for room in ROOMS for path in (SHARED / room).glob("*.py") if path.name not in AIRFLOWS_OWN]
    for path in [*paths, SHARED / "exceptions.py"]:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and function.name not in UNREACHABLE:
                for node in ast.walk(ast.Module(function.body[ast.get_docstring(function) is not None :], [])):
                    text = literal(node)
                    if text.count(" ") > 3:
                        yield f"{path.name}:{getattr(node, 'lineno', 0)}", text


def literal(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_no_message_speaks_of_airflow() -> None:
    named = [(where, text.replace("{}", "'IntergiroResource'")) for where, text in messages()]
    assert len(named) > 100
    left = [(where, shown) for where, text in named if FOREIGN.search(shown := in_dagsters_words(text))]
    assert left == []


def test_an_error_is_shown_in_these_words() -> None:
    assert str(IntergiroServerError(503)).endswith("Dagster retries the step as its retry policy says.")


@pytest.mark.parametrize("message", ["`path` holds another increment", "Nothing is lost."])
def test_other_messages_stay_as_they_are(message: str) -> None:
    assert in_dagsters_words(message) == message
