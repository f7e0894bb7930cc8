# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, TaskGroup, task

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.operators.payment_base import has_fixed_order, object_path
from intergiro_provider.operators.payments import IntergiroBulkPaymentOperator, IntergiroPaymentOperator

PAYEE = {"name": "{{ payee }}", "iban": "{{ iban }}", "bic": "ESSESESS"}
PAY: dict[str, Any] = {"task_id": "pay", "operation": "pay", "account_id": "a", "amount": 5, "reference": "r"}


def stored(operator: BaseOperator) -> str:
    """Return the rendered fields as Airflow stores them."""
    try:
        from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields
    except ImportError:
        from airflow.serialization.helpers import serialize_template_field

        return json.dumps([serialize_template_field(getattr(operator, f), f) for f in operator.template_fields])
    return json.dumps(_serialize_rendered_fields(operator))


@pytest.mark.parametrize(
    "operator",
    [
        IntergiroPaymentOperator(**PAY, counterparty=PAYEE),
        IntergiroBulkPaymentOperator(
            task_id="b",
            account_id="a",
            items=[{"counterparty": PAYEE, "amount": 5, "reference": "r"}],
            record_path="/r",
        ),
    ],
    ids=["single", "bulk"],
)
def test_rendered_payees_are_not_stored(operator: Any) -> None:
    for _ in range(2):  # Airflow may render twice
        operator.render_template_fields({"payee": "Ada", "iban": "SE4550000000058398257466"})
    assert "Ada" not in stored(operator)
    assert "SE45" not in stored(operator)
    given = operator.counterparty if hasattr(operator, "counterparty") else operator.items
    assert "SE4550000000058398257466" in json.dumps(given.value)
    assert repr(given) == "<hidden>"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"payment_scope": "ever"}, "without `payment_key`"),
        ({"payment_scope": "dag", "payment_key": "k"}, "without `record_path`"),
        ({"amount": 1.5}, "is a float"),
        ({"dry_run": "{{ params.dry_run }}"}, "`dry_run` is '{{ params.dry_run }}'. It must be True or False"),
        ({"settle": 600}, "`settle` is 600"),
        ({"key_trusted_for": timedelta(-1)}, "`key_trusted_for` is"),
        ({"consent_poll_interval": 0}, "`consent_poll_interval` is 0"),
    ],
)
def test_what_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(IntergiroValueError, match=problem):
        IntergiroPaymentOperator(**{**PAY, **arguments})


@pytest.mark.parametrize("name", ["approved_plan", "payment_key", "record_path", "currency"])
def test_what_is_rendered_to_none_is_not_left_out(name: str) -> None:
    """A lost approval must not be treated as "no approval needed"."""
    with DAG("d", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None, render_template_as_native_obj=True):
        operator = IntergiroPaymentOperator(**PAY, **{name: "{{ missing }}"})
    operator.render_template_fields({"missing": None})
    with pytest.raises(IntergiroValueError, match=f"`{name}` is given, but its value is None"):
        operator.execute({})


def test_an_approval_of_none_in_a_mapped_task_is_refused() -> None:
    with DAG("d", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None) as dag:
        IntergiroPaymentOperator.partial(**PAY).expand(approved_plan=[None, "0" * 64])
    operator = dag.get_task("pay").unmap({"approved_plan": None})
    with pytest.raises(IntergiroValueError, match="`approved_plan` is given, but its value is None"):
        operator.execute({})


def test_the_order_of_a_mapped_task() -> None:
    fixed = {name: value for name, value in PAY.items() if name not in ("task_id", "reference", "amount")}
    with DAG("d", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None) as dag:

        @task
        def upstream() -> list[str]:
            return ["a", "b"]

        given = upstream()
        IntergiroPaymentOperator.partial(task_id="listed", amount=5, **fixed).expand(reference=["a", "b"])
        IntergiroPaymentOperator.partial(task_id="dicts", **fixed).expand_kwargs([{"amount": 5, "reference": "a"}])
        IntergiroPaymentOperator.partial(task_id="result", amount=5, **fixed).expand(reference=given)
        IntergiroPaymentOperator.partial(task_id="both", **fixed).expand(reference=["a", "b"], amount=given)
        IntergiroPaymentOperator(**PAY)
        with TaskGroup("group"):
            IntergiroPaymentOperator.partial(task_id="inner", amount=5, **fixed).expand(reference=["a"])
    for name, expected in {
        "listed": True, "dicts": True, "result": False, "both": False, "pay": False, "group.inner": True, "gone": False,
    }.items():  # fmt: skip
        operator = IntergiroPaymentOperator(**{**PAY, "task_id": name.rpartition(".")[2]})
        operator.task_id = name
        assert has_fixed_order(operator, {"dag": dag}) is expected, name
    assert not has_fixed_order(operator, {})


def test_importing_them_is_cheap() -> None:
    script = (
        "import sys; from airflow.providers.common.compat.sdk import BaseOperator; before = set(sys.modules)\n"
        "from intergiro_provider.operators.payments import IntergiroPaymentOperator as P\n"
        "P(task_id='p', operation='pay', account_id='a', amount=5, reference='r')\n"
        "heavy = ('requests', 'schwifty', 'iso4217', 'msgspec', 'intergiro_provider.payments',"
        " 'intergiro_provider.hooks')\n"
        "print('NEW', *[m for m in set(sys.modules) - before if m.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "NEW"


def test_items_that_are_neither_json_nor_a_url_are_not_shown() -> None:
    with pytest.raises(IntergiroValueError, match="neither a URL") as caught:  # a Decimal is not JSON
        object_path("[{'counterparty': {'name': 'Ada'}, 'amount': Decimal('1')}]", "`items`")
    assert "Ada" not in str(caught.value)
