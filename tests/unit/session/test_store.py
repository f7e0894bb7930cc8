# SPDX-License-Identifier: Apache-2.0
"""The Variable store against a real metadata database."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from intergiro_provider.exceptions import IntergiroValueError, ShadowedError, StoreUnavailable
from intergiro_provider.session.documents import Lease, Ledger, Login, Session
from intergiro_provider.session.store import VariableStore, session_variable

SESSION = Session("eyJ.access", "refresh-1", key="k", gen=4, nonce="n4", login_at=12.5, writer="host:1")
LEASE = Lease(4, "n5", owner="host:1", floor=3, verdict="bank", verdict_at=1.0, verdict_until=2.5, refused_at=9.0)
LEDGER = Ledger((Login(10.0, "n1", 3640.0), Login(20.0, "n2", 4220.5)))


@pytest.fixture
def store(airflow_db: Path, request: pytest.FixtureRequest) -> VariableStore:
    return VariableStore(f"intergiro_session_{abs(hash(request.node.name))}")


def rows(name: str) -> dict[str, tuple[str, str]]:
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(select(Variable).where(Variable.key.startswith(name)))
        return {row.key: (row.get_val(), row.description) for row in found}


def put(key: str, value: str) -> None:
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Variable(key=key, val=value))


@pytest.mark.parametrize(("slot", "document"), [("session", SESSION), ("lease", LEASE), ("ledger", LEDGER)])
def test_a_document_comes_back_as_it_was(store: VariableStore, slot: str, document: Session | Lease | Ledger) -> None:
    assert store.read(slot) is None
    assert store.is_absent(slot)

    store.write(slot, document)

    assert store.read(slot) == document
    assert not store.is_absent(slot)


def test_each_document_is_a_variable_of_its_own_with_a_description(store: VariableStore) -> None:
    store.write("session", SESSION)
    store.write("lease", LEASE)
    store.write("ledger", LEDGER)
    store.write("session", SESSION)

    stored = rows(store.name)
    assert set(stored) == {store.name, f"{store.name}_lease", f"{store.name}_logins"}
    assert all("airflow-provider-intergiro" in description for _, description in stored.values())
    assert {json.loads(value)["kind"] for value, _ in stored.values()} == {"session", "lease", "logins"}


def test_a_session_seeded_by_a_person_is_two_tokens(store: VariableStore) -> None:
    put(store.name, json.dumps({"access_token": "a", "refresh_token": "r"}))

    session = store.read("session")

    assert isinstance(session, Session)
    assert session.seeded
    assert (session.access_token, session.refresh_token, session.gen) == ("a", "r", 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret-token-value",
        "[]",
        '{"refresh_token": "secret-token-value"}',
        '{"access_token": "secret-token-value\\n", "refresh_token": "r"}',
        '{"access_token": "Bearer secret-token-value", "refresh_token": "r"}',
        '{"access_token": "secret-token-valu\\u00e9", "refresh_token": "r"}',
        '{"access_token": "", "refresh_token": "secret-token-value"}',
        LEASE.encode(),
        SESSION.encode().replace('"session"', '"other"'),
        SESSION.encode().replace('"v": 1', '"v": 2'),
        SESSION.encode().replace('"gen": 4', '"gen": "4"'),
        SESSION.encode().replace('"gen": 4', '"gen": true'),
        SESSION.encode().replace('"key": "k", ', ""),
    ],
)
def test_a_broken_variable_is_not_an_absent_one(store: VariableStore, text: str) -> None:
    put(store.name + "x" * (hash(text) % 7), text)
    broken = VariableStore(store.name + "x" * (hash(text) % 7))

    with pytest.raises(StoreUnavailable) as caught:
        broken.read("session")

    assert broken.name in str(caught.value)
    assert "secret-token-value" not in str(caught.value)
    assert "eyJ.access" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_environment_variable_that_hides_the_variable_is_an_error(
    store: VariableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AIRFLOW_VAR_{store.name.upper()}", "hidden")

    with pytest.raises(ShadowedError, match=f"AIRFLOW_VAR_{store.name.upper()}"):
        store.read("session")


def test_another_fernet_key_is_not_an_absence(store: VariableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.fernet import Fernet

    class Key(Fernet):
        is_encrypted = True

    ours, other = Key(Fernet.generate_key()), Key(Fernet.generate_key())
    monkeypatch.setattr("airflow.models.variable.get_fernet", lambda: ours)
    store.write("session", SESSION)
    assert store.read("session") == SESSION
    monkeypatch.setattr("airflow.models.variable.get_fernet", lambda: other)

    with pytest.raises(StoreUnavailable, match="Fernet"):
        store.read("session")
    with pytest.raises(StoreUnavailable, match="Fernet"):
        store.is_absent("session")

    class NoKey:
        is_encrypted = False

        def decrypt(self, text: bytes) -> bytes:
            return text

    monkeypatch.setattr("airflow.models.variable.get_fernet", NoKey)
    with pytest.raises(StoreUnavailable, match="Fernet"):
        store.read("session")


def test_writers_at_once_all_succeed_and_one_value_stays(store: VariableStore) -> None:
    failures: list[Exception] = []

    def write(number: int) -> None:
        try:
            for _ in range(5):
                store.write("lease", Lease(1, f"n{number}"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert list(rows(store.name)) == [f"{store.name}_lease"]
    lease = store.read("lease")
    assert isinstance(lease, Lease)
    assert lease.nonce in {"n0", "n1", "n2", "n3"}


def test_an_unreachable_database_is_an_error_without_the_statement(
    store: VariableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow import settings
    from sqlalchemy import create_engine
    from sqlalchemy.orm import sessionmaker

    nowhere = sessionmaker(bind=create_engine("sqlite:////nonexistent/airflow.db"))
    monkeypatch.setattr(settings, "Session", nowhere)

    for operation in (lambda: store.read("session"), lambda: store.is_absent("session")):
        with pytest.raises(StoreUnavailable, match=store.name) as caught:
            operation()
        assert caught.value.__cause__ is None
    with pytest.raises(StoreUnavailable) as caught:
        store.write("session", SESSION)
    assert SESSION.access_token not in str(caught.value)
    assert caught.value.__suppress_context__


class TaskVariables:
    """What a task of Airflow 3.0 to 3.2 has: absent, or not readable now, it is the default that comes back."""

    def __init__(self, **held: str) -> None:
        self.held = held
        self.readable = True
        self.refused = False

    def get(self, key: str, default: str | None) -> str | None:
        return self.held.get(key, default) if self.readable else default

    def set(self, key: str, value: str, description: str) -> None:
        if self.refused:
            raise RuntimeError("somebody else has just written it")
        self.held[key] = value


class TestInATaskBeforeAirflow33:
    @pytest.fixture
    def variables(self, monkeypatch: pytest.MonkeyPatch) -> TaskVariables:
        pytest.importorskip("airflow.sdk", reason="Airflow 2 has no tasks without the metadata database")
        variables = TaskVariables()
        monkeypatch.setattr("airflow.sdk.Variable", variables)
        monkeypatch.setattr("intergiro_provider.session.store._comms", lambda: object())
        return variables

    def test_before_the_first_login_the_session_is_absent(self, variables: TaskVariables) -> None:
        store = VariableStore("s")
        assert store.read("session") is None
        assert store.is_absent("session")
        assert list(variables.held) == ["s_witness"]
        assert len(variables.held["s_witness"]) >= 5  # Airflow warns of shorter ones: it cannot mask them

    def test_another_task_may_have_looked_at_the_same_time(self, variables: TaskVariables) -> None:
        variables.held["s_witness"], variables.refused = "readable", True
        assert VariableStore("s").is_absent("session")

    def test_what_cannot_be_read_is_not_absent(self, variables: TaskVariables) -> None:
        variables.held["s"] = SESSION.encode()
        variables.readable = False
        with pytest.raises(StoreUnavailable, match="cannot be read at present"):
            VariableStore("s").is_absent("session")

    def test_one_that_comes_to_light_is_not_absent(
        self, variables: TaskVariables, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        variables.held["s"] = SESSION.encode()
        variables.readable = False
        write = variables.set

        def recover(*args: str) -> None:
            write(*args)
            variables.readable = True

        monkeypatch.setattr(variables, "set", recover)
        assert not VariableStore("s").is_absent("session")

    def test_once_there_is_a_lease_nothing_is_written(self, variables: TaskVariables) -> None:
        variables.held["s_lease"] = LEASE.encode()
        assert VariableStore("s").is_absent("session")
        assert list(variables.held) == ["s_lease"]


def test_the_default_name_follows_the_connection_and_avoids_masked_words() -> None:
    assert session_variable("intergiro_default") == "intergiro_session_intergiro_default"
    hashed = session_variable("bank_api_key")
    assert hashed.startswith("intergiro_session_")
    assert "api_key" not in hashed
    assert hashed != session_variable("bank_secret")
    assert session_variable("bank", "shared_bank") == "shared_bank"
    with pytest.raises(IntergiroValueError, match="`session_variable`"):
        session_variable("bank", "bank_token")


def test_the_documents_do_not_show_tokens() -> None:
    assert "eyJ.access" not in repr(SESSION)
    assert "refresh-1" not in repr(SESSION)
    assert os.environ["AIRFLOW_HOME"]


def test_a_session_stored_before_it_named_its_login_is_read() -> None:
    document = json.loads(SESSION.encode())
    assert document.pop("login") == ""
    assert Session.decode(json.dumps(document)) == SESSION
