# SPDX-License-Identifier: Apache-2.0
"""The triggers' arguments; the integration tests cover their requests."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.triggers.intergiro import IntergiroEventTrigger, IntergiroSensorTrigger

AIRFLOW_2 = version("apache-airflow").startswith("2.")
only_3 = pytest.mark.skipif(AIRFLOW_2, reason="event-driven DAGs are Airflow 3's")

SENSOR = {
    "endpoint": "transactions", "response_check": "a.b", "query": {"limit": 1}, "poke_interval": 7.0,
    "intergiro_conn_id": "bank",
}  # fmt: skip
EVENT = {"endpoint": "transactions", "query": {"statuses": "completed"}, "poll_interval": 7, "intergiro_conn_id": "b"}


def again(trigger: BaseTrigger) -> BaseTrigger:
    """Return the trigger as the triggerer creates it, from the stored arguments."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    made: BaseTrigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(kwargs)))
    return made


def test_a_sensors_trigger_is_made_again_as_it_was() -> None:
    trigger = again(IntergiroSensorTrigger(**SENSOR))
    assert isinstance(trigger, IntergiroSensorTrigger)
    assert trigger.serialize()[1] == SENSOR


@only_3
def test_an_event_trigger_is_made_again_as_it_was() -> None:
    trigger = again(IntergiroEventTrigger(**EVENT))  # type: ignore[arg-type]
    assert isinstance(trigger, IntergiroEventTrigger)
    assert trigger.serialize()[1] == EVENT


@only_3
def test_equal_event_triggers_are_one_to_airflow() -> None:
    from airflow.triggers.base import BaseEventTrigger

    def identity(**arguments: Any) -> int:
        trigger = IntergiroEventTrigger(**{"endpoint": "transactions", **arguments})
        assert isinstance(trigger, BaseEventTrigger)
        return BaseEventTrigger.hash(*trigger.serialize())

    assert identity() == identity(query=None) == identity(query={})
    assert identity(query={"statuses": ("a", "b")}) == identity(query={"statuses": ["a", "b"]})
    assert len({identity(), identity(endpoint="accounts"), identity(poll_interval=61), identity(query={"a": 1})}) == 4


@only_3
def test_an_asset_watcher_takes_it() -> None:
    from airflow.sdk import Asset, AssetWatcher

    watcher = AssetWatcher(name="poll", trigger=IntergiroEventTrigger(endpoint="transactions"))
    assert Asset("new_transactions", watchers=[watcher]).watchers == [watcher]


@only_3
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"poll_interval": 0.5}, "`poll_interval`"),
        ({"poll_interval": True}, "`poll_interval`"),
        ({"poll_interval": "60"}, "`poll_interval`"),
        ({"query": {"limit": 5}}, "`limit`"),
        ({"query": {"created_from": datetime(2026, 1, 1, tzinfo=UTC)}}, "`query` must be JSON"),
        ({"query": {"sort_by": "updated_at"}}, "`sort_by`"),
    ],
)
def test_what_cannot_work_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(IntergiroValueError, match=named):
        IntergiroEventTrigger(endpoint="transactions", **arguments)


@pytest.mark.skipif(not AIRFLOW_2, reason="what Airflow 2 says")
def test_airflow_2_has_no_event_driven_dags() -> None:
    with pytest.raises(IntergiroValueError, match="needs Airflow 3"):
        IntergiroEventTrigger(endpoint="transactions")


@only_3
def test_positions_of_different_lists_do_not_meet() -> None:
    keys = {
        IntergiroEventTrigger(**{"endpoint": "transactions", **arguments})._key()
        for arguments in (
            {}, {"endpoint": "accounts"}, {"query": {"statuses": "completed"}}, {"intergiro_conn_id": "other"},
            {"poll_interval": 5},
        )
    }  # fmt: skip
    assert len(keys) == 4, "how often a list is polled changes nothing about what was seen of it"
