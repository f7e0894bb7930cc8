# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import inspect
import json
import logging
import pickle
import threading
from importlib.util import find_spec
from typing import Any

import pytest
from airflow.providers.http.hooks.http import HttpHook

from intergiro_provider.api.settings import KNOWN_EXTRAS
from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.get_provider_info import get_provider_info
from intergiro_provider.hooks.intergiro import CONNECTIONS, IntergiroHook

CONNECTION = {"conn_type": "intergiro", "password": "c5f90f4b-9d69-416a-8611-8a8c8d605c36"}


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the connection ids that are looked up. The environment has the connection `bank`."""
    monkeypatch.setenv("AIRFLOW_CONN_BANK", json.dumps(CONNECTION))
    seen: list[str] = []
    original, mine = IntergiroHook.get_connection, threading.get_ident()

    def counted(conn_id: str) -> Any:
        if threading.get_ident() == mine:  # threads of earlier tests may still renew a session
            seen.append(conn_id)
        return original(conn_id)

    monkeypatch.setattr(IntergiroHook, "get_connection", staticmethod(counted))
    return seen


def test_a_hook_looks_its_connection_up_once_and_not_when_it_is_made(lookups: list[str]) -> None:
    hook = IntergiroHook("bank")
    assert lookups == []

    hook.get_conn()
    hook.url_from_endpoint("accounts")
    assert hook.get_conn() is hook.get_conn()
    assert lookups == ["bank"]


def test_it_takes_what_the_stock_operator_hands_to_a_hook() -> None:
    needed = set(inspect.signature(HttpHook.__init__).parameters) - {"self", "http_conn_id"}

    assert needed <= set(inspect.signature(IntergiroHook.__init__).parameters)
    assert IntergiroHook.conn_name_attr == "intergiro_conn_id"
    assert IntergiroHook(method="post").method == "POST"


def test_the_stock_operator_gets_this_hook_from_the_connection(lookups: list[str]) -> None:
    from airflow.providers.http.operators.http import HttpOperator

    operator = HttpOperator(task_id="call", http_conn_id="bank", endpoint="accounts", method="GET")

    hook = operator.hook
    assert type(hook) is IntergiroHook
    assert hook.intergiro_conn_id == "bank"
    assert hook.method == "GET"


def test_time_outs_pool_and_keep_alive_reach_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BANK", json.dumps({**CONNECTION, "extra": {"read_timeout": 7, "verify": False}}))
    session = IntergiroHook("bank", tcp_keep_alive_idle=33).get_conn()

    assert session.timeout == (5.0, 7.0)  # type: ignore[attr-defined]
    assert session.verify is False
    adapter = session.get_adapter("https://3d.intergiro.com")
    assert adapter._pool_maxsize == CONNECTIONS  # type: ignore[attr-defined]
    assert any(option[2] == 33 for option in adapter.socket_options)  # type: ignore[attr-defined]


def test_extra_that_is_not_an_object_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.models.connection import Connection

    connection = Connection(conn_id="bank", conn_type="intergiro", password="c5f90f4b")
    connection._extra = "[1]"
    monkeypatch.setattr(IntergiroHook, "get_connection", staticmethod(lambda conn_id: connection))

    with pytest.raises(IntergiroValueError, match="extra"):
        IntergiroHook("bank").get_conn()


def test_names_that_mean_nothing_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BANK", json.dumps({**CONNECTION, "extra": {"x-team": "staging-secret"}}))
    hook = IntergiroHook("bank")
    # Airflow's loggers do not propagate to the root logger, where caplog records.
    monkeypatch.setattr(hook, "_log", logging.getLogger("test"))
    hook.get_conn()

    assert "x-team" in caplog.text
    assert "staging-secret" not in caplog.text


def test_the_form_and_the_reader_know_the_same_settings() -> None:
    assert set(get_provider_info()["connection-types"][0]["conn-fields"]) == KNOWN_EXTRAS


def test_the_form_of_older_versions_has_every_field() -> None:
    if find_spec("flask_appbuilder") is None:
        pytest.skip("Airflow ≥ 3 without flask_appbuilder: the form comes from the provider info")
    widgets = IntergiroHook.get_connection_form_widgets()

    assert set(widgets) == KNOWN_EXTRAS
    assert IntergiroHook.get_ui_field_behaviour()["relabeling"]["password"] == "API key"


def test_the_form_of_older_versions_renders() -> None:
    if find_spec("flask_appbuilder") is None:
        pytest.skip("Airflow ≥ 3 without flask_appbuilder: the form comes from the provider info")
    from wtforms import Form

    form_class = type("ConnectionForm", (Form,), dict(IntergiroHook.get_connection_form_widgets()))
    fields = {field.name: field for field in form_class()}

    said = get_provider_info()["connection-types"][0]["conn-fields"]
    assert {name: (str(field.label.text), field.description) for name, field in fields.items()} == {
        name: (field["label"], field["description"]) for name, field in said.items()
    }
    assert all(field() for field in fields.values()), "each makes HTML"
    assert 'type="password"' in fields["proxies"]()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda hook: pickle.loads(pickle.dumps(hook))])
def test_a_copy_is_a_hook_of_its_own_on_the_same_connection(lookups: list[str], copied: Any) -> None:
    hook = IntergiroHook("bank", method="POST", tcp_keep_alive_idle=7)
    hook.log.debug("a logger has been made")
    session = hook.get_conn()

    other = copied(hook)
    assert (other.intergiro_conn_id, other.method, other._keep_alive) == ("bank", "POST", hook._keep_alive)
    assert other.get_conn() is not session
    assert hook.get_conn() is session
    assert lookups == ["bank", "bank"]
    assert other._lock is not hook._lock


def test_no_key_travels_in_a_pickle(lookups: list[str]) -> None:
    hook = IntergiroHook("bank")
    assert hook.settings.api_key == CONNECTION["password"]
    hook.get_conn()

    assert CONNECTION["password"].encode() not in pickle.dumps(hook)
    assert b"bank" in pickle.dumps(hook)
