# SPDX-License-Identifier: Apache-2.0
"""Run the rows of the page "Refused payments": each raises its message, nothing is sent, and no refusal is missing."""

from __future__ import annotations

import ast
import inspect
import json
import re
import socket
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.operators.payments import IntergiroBulkPaymentOperator, IntergiroPaymentOperator

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "payment-errors.md"
IBAN = "SE4550000000058398257466"
PAYEE = {"name": "Ada", "iban": IBAN, "bic": "ESSESESS"}
ITEM = {"counterparty": PAYEE, "amount": 12500, "reference": "Wages"}
PAY: dict[str, Any] = {"operation": "pay", "account_id": "a1", "amount": 12500, "reference": "Rent"}
BULK: dict[str, Any] = {
    "account_id": "a1",
    "items": [ITEM],
    "record_path": "/records",
    "intergiro_conn_id": "intergiro_2d",
}
MODULES = [
    *(
        ROOT / "intergiro_provider" / "payments" / f"{name}.py"
        for name in ("amounts", "batches", "keys", "payees", "plan")
    ),
    *(ROOT / "intergiro_provider" / "operators" / f"{name}.py" for name in ("payment_base", "payments")),
]
ELSEWHERE = "not installed|not an account of this connection|but the account is in"
NAMES = {"Decimal": Decimal, "timedelta": timedelta, "item": ITEM, "payee": PAYEE, "account_id": "a1"}


def rows() -> list[tuple[str, str, str]]:
    """Return heading, input and message of each row."""
    found, heading = [], ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif (row := re.fullmatch(r"\| (.+?) \| (.+) \|", line)) and "---" not in line and row[1] != "you write":
            found.append((heading, row[1].replace("\\|", "|"), row[2]))
    return found


def run(heading: str, written: str, directory: Path) -> None:
    """Create the operator with the input of a row, and execute it."""
    if (case := CASES.get(written)) is not None:
        case(directory)
        return
    given = eval(f"dict({written.strip('`')})", dict(NAMES))
    if heading == "Many payments at once":
        execute(IntergiroBulkPaymentOperator(task_id="pay", **{**BULK, **given}))
    else:
        execute(IntergiroPaymentOperator(task_id="pay", **{**PAY, "counterparty": PAYEE, **given}))


def execute(operator: Any, **context: Any) -> None:
    ti = SimpleNamespace(dag_id="d", task_id="pay", run_id="r", map_index=-1, try_number=1, max_tries=0)
    # Without `message_only`, which removes the frames that show where an error was raised.
    inspect.unwrap(type(operator).execute)(operator, {"ti": ti, **context})


def lost_plan(directory: Path) -> None:
    with DAG("d", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None, render_template_as_native_obj=True):
        operator = IntergiroPaymentOperator(task_id="pay", **PAY, counterparty=PAYEE, approved_plan="{{ missing }}")
    operator.render_template_fields({"missing": None})
    execute(operator)


def mapped(directory: Path) -> None:
    @task
    def invoices() -> list[dict[str, Any]]:
        return []

    with DAG("d", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None) as dag:
        IntergiroPaymentOperator.partial(task_id="pay").expand_kwargs(invoices())
    ti = SimpleNamespace(dag_id="d", task_id="pay", run_id="r", map_index=0)
    execute(IntergiroPaymentOperator(task_id="pay", **PAY, counterparty=PAYEE), ti=ti, dag=dag)


def outside(directory: Path) -> None:
    execute(IntergiroPaymentOperator(task_id="pay", **PAY, counterparty=PAYEE), ti=None)


def file_of_items(directory: Path, second: str = IBAN) -> None:
    (directory / "items.jsonl").write_text(f"{{}}\n{second}\n")
    execute(IntergiroBulkPaymentOperator(task_id="pay", **{**BULK, "items": str(directory / "items.jsonl")}))


CASES = {
    "an `approved_plan` of None; `currency`, `payment_key` or `record_path` that renders to None": lost_plan,
    "no `payment_key` in a task that is expanded over another task's result": mapped,
    "`execute` called outside of a DAG run": outside,
    "a file of `items` whose second line is not JSON": file_of_items,
    "a file of `items` whose second line has a field twice": partial(
        file_of_items, second='{"amount": 1, "amount": 2}'
    ),
}


@pytest.fixture
def nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> Any:
    sent: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: sent.append(address))
    for name, api in (("DEFAULT", "3d"), ("2D", "2d")):
        described = {"conn_type": "intergiro", "password": "a key", "extra": {"api": api}}
        monkeypatch.setenv(f"AIRFLOW_CONN_INTERGIRO_{name}", json.dumps(described))
    yield
    assert sent == []


@pytest.mark.parametrize(("heading", "written", "message"), rows())
def test_each_row_has_its_message(
    nothing_is_sent: None, tmp_path: Path, heading: str, written: str, message: str
) -> None:
    with pytest.raises(IntergiroValueError) as refused:
        run(heading, written, tmp_path)
    assert str(refused.value) == message
    assert not re.search(f"Ada|{IBAN}|SE45", message)


def test_no_refusal_is_left_out(nothing_is_sent: None, tmp_path: Path) -> None:
    """The rows reach every `raise` of a refusal, except for those in the last section of the page."""
    reached = set()
    for heading, written, _ in rows():
        with pytest.raises(IntergiroValueError) as refused:
            run(heading, written, tmp_path)
        reached.add((Path(refused.traceback[-1].path), refused.traceback[-1].lineno + 1))
    left_out = []
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            said = ast.unparse(node) if isinstance(node, ast.Raise) else ""
            if re.search("IntergiroValueError|_refused", said) and not re.search(ELSEWHERE, said):
                lines = range(node.lineno, node.end_lineno + 1)  # type: ignore[attr-defined]
                left_out += [] if any((module, line) in reached for line in lines) else [said]
    assert left_out == []
