# SPDX-License-Identifier: Apache-2.0
"""The Variable store against a real metadata database."""

from __future__ import annotations

import json
import os
import re
import threading
import traceback
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from intergiro_provider.exceptions import ShadowedError, StoreUnavailable
from intergiro_provider.session import store as store_module
from intergiro_provider.session.codec import Codec, DocumentError
from intergiro_provider.session.documents import Lease, Login, LoginHistory, Slot, TokenPair, session_name
from intergiro_provider.session.store import VariableStore

CODEC = Codec("https://bank.example", "0b9d1c1e-key")
SESSION = TokenPair(
    "eyJ.access", "refresh-1", 4, "n4", login_at=12.5, writer="host:1", connections=("a", "b"), key=CODEC.key
)
LEASE = Lease(
    4, "n5", holder="host:1", floor=3, release_reason="bank", at=1.0, exact=True, blocked_until=2.5, refused_at=9.0
)
HISTORY = LoginHistory((Login(10.0, "n1", 3640.0), Login(20.0, "n2", 4220.5)))


@pytest.fixture
def store(airflow_db: Path, request: pytest.FixtureRequest) -> VariableStore:
    return VariableStore(CODEC, f"intergiro_session_{abs(hash(request.node.name))}")


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


@pytest.mark.parametrize(("slot", "document"), [("session", SESSION), ("lease", LEASE), ("logins", HISTORY)])
def test_a_document_comes_back_as_it_was(
    store: VariableStore, slot: str, document: TokenPair | Lease | LoginHistory
) -> None:
    assert store.read(slot) is None
    assert store.is_absent(slot)

    store.write(slot, document)

    assert store.read(slot) == document
    assert not store.is_absent(slot)


def test_each_document_is_a_variable_of_its_own_with_a_description(store: VariableStore) -> None:
    store.write("session", SESSION)
    store.write("lease", LEASE)
    store.write("logins", HISTORY)
    store.write("session", SESSION)

    stored = rows(store.name)
    assert set(stored) == {store.name, f"{store.name}_lease", f"{store.name}_logins"}
    assert all("airflow-provider-intergiro" in description for _, description in stored.values())
    assert {json.loads(value)["kind"] for value, _ in stored.values()} == {"session", "lease", "logins"}


def test_the_description_names_the_connections(store: VariableStore) -> None:
    store.write("session", SESSION)
    assert "the connection a, b." in rows(store.name)[store.name][1]


def test_no_token_is_in_what_is_stored(store: VariableStore) -> None:
    store.write("session", SESSION)
    text, _ = rows(store.name)[store.name]
    assert "eyJ.access" not in text
    assert "refresh-1" not in text
    # Airflow masks values of these names.
    assert {"access_token", "refresh_token"} <= json.loads(text).keys()


def changed(**fields: object) -> str:
    document = json.loads(CODEC.encode("session", SESSION)) | fields
    return json.dumps({name: value for name, value in document.items() if value is not ...})


CLEAR = "secret-token-value"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a JSON object"),
        (CLEAR, "not a JSON object"),
        ("[]", "not a JSON object"),
        (json.dumps({"access_token": CLEAR, "refresh_token": CLEAR}), "kind is not 'session'"),
        (changed(access_token=CLEAR), "cannot be decrypted"),
        (changed(refresh_token=CLEAR), "cannot be decrypted"),
        (changed(access_token="***", refresh_token="***"), "holds \\*\\*\\* instead of a token.*UI"),
        (Codec("https://bank.example", "another").encode("session", SESSION), "cannot be decrypted"),
        (Codec("https://else.example", "0b9d1c1e-key").encode("session", SESSION), "cannot be decrypted"),
        (CODEC.encode("session", replace(SESSION, access_token="two words")), "cannot be sent in a header"),
        (CODEC.encode("session", replace(SESSION, access_token="two\nlines")), "cannot be sent in a header"),
        (CODEC.encode("session", replace(SESSION, access_token="café")), "cannot be sent in a header"),
        (CODEC.encode("session", replace(SESSION, access_token="")), "cannot be sent in a header"),
        (CODEC.encode("lease", LEASE), "kind is not 'session'"),
        (changed(v=1, access_token=CLEAR), "v is not 2: another version"),
        (changed(gen="4", writer=CLEAR), "field gen is missing or wrong"),
        (changed(gen=True), "field gen is missing or wrong"),
        (changed(gen=...), "field gen is missing or wrong"),
        (changed(nonce=""), "field nonce is missing or wrong"),
        (changed(access_token=...), "field access_token is missing or wrong"),
    ],
)
def test_a_broken_variable_is_not_an_absent_one(airflow_db: Path, text: str, says: str) -> None:
    broken = VariableStore(CODEC, f"intergiro_session_{uuid.uuid4().hex}")
    put(broken.name, text)

    with pytest.raises(
        StoreUnavailable, match=f"{broken.name} cannot be used: .*{says}.*Delete the Variable"
    ) as caught:
        broken.read("session")

    # Neither the message nor a traceback with local variables contains it.
    frames = traceback.StackSummary.extract(traceback.walk_tb(caught.value.__traceback__), capture_locals=True)
    shown = str([frame.locals for frame in frames if frame.filename == store_module.__file__])
    assert not any(token in str(caught.value) + shown for token in (CLEAR, "eyJ.access", "refresh-1"))
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("slot", "text", "says"),
    [
        (
            "lease",
            '{"kind": "lease", "v": 2, "gen": 1, "nonce": "n", "release_reason": "of no kind"}',
            "field release_reason",
        ),
        ("logins", '{"kind": "logins", "v": 2, "logins": [{"at": 1, "nonce": "n"}]}', "field logins\\[0\\]"),
        ("logins", '{"kind": "logins", "v": 2, "logins": {}}', "field logins"),
    ],
)
def test_a_broken_lease_or_history_is_not_an_absent_one(slot: Slot, text: str, says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        CODEC.decode(slot, text)


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
    assert caught.value.__context__ is None


class TaskVariables:
    """Variables in a task of Airflow 3.0 to 3.2: `get` returns the default if a Variable is absent or unreadable."""

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
        store = VariableStore(CODEC, "s")
        assert store.read("session") is None
        assert store.is_absent("session")
        assert list(variables.held) == ["s_witness"]
        assert len(variables.held["s_witness"]) >= 5  # Airflow cannot mask shorter ones, and logs a warning

    def test_another_task_may_have_looked_at_the_same_time(self, variables: TaskVariables) -> None:
        variables.held["s_witness"], variables.refused = "readable", True
        assert VariableStore(CODEC, "s").is_absent("session")

    def test_what_cannot_be_read_is_not_absent(self, variables: TaskVariables) -> None:
        variables.held["s"] = CODEC.encode("session", SESSION)
        variables.readable = False
        with pytest.raises(StoreUnavailable, match="cannot be read at present"):
            VariableStore(CODEC, "s").is_absent("session")

    def test_one_that_comes_to_light_is_not_absent(
        self, variables: TaskVariables, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        variables.held["s"] = CODEC.encode("session", SESSION)
        variables.readable = False
        write = variables.set

        def recover(*args: str) -> None:
            write(*args)
            variables.readable = True

        monkeypatch.setattr(variables, "set", recover)
        assert not VariableStore(CODEC, "s").is_absent("session")

    def test_once_there_is_a_lease_nothing_is_written(self, variables: TaskVariables) -> None:
        variables.held["s_lease"] = CODEC.encode("lease", LEASE)
        assert VariableStore(CODEC, "s").is_absent("session")
        assert list(variables.held) == ["s_lease"]


def test_a_session_is_named_by_origin_and_key() -> None:
    names = {session_name(Codec(origin, key).key) for origin in ("https://a", "https://b") for key in ("k1", "k2")}
    assert len(names) == 4
    assert all(re.fullmatch("intergiro_session_[0-9a-f]{16}", name) for name in names)
    assert session_name(Codec("https://a", "k1").key) in names


def test_the_documents_do_not_show_tokens() -> None:
    assert "eyJ.access" not in repr(SESSION)
    assert "refresh-1" not in repr(SESSION)
    assert os.environ["AIRFLOW_HOME"]


@pytest.mark.parametrize(("channel", "masks"), [("CommsDecoder", True), ("TriggerCommsDecoder", False), (None, False)])
def test_tokens_are_masked_in_tasks_alone(monkeypatch: pytest.MonkeyPatch, channel: str | None, masks: bool) -> None:
    """In other processes, each masked string would remain a pattern as long as the process runs."""
    monkeypatch.delenv("AIRFLOW_CTX_DAG_ID", raising=False)
    comms = type(channel, (), {})() if channel else None
    monkeypatch.setattr("intergiro_provider.session.store._comms", lambda: comms)
    masked: list[str] = []
    monkeypatch.setattr("intergiro_provider.session.store._mask_secret", lambda: masked.append)

    VariableStore(CODEC).mask(SESSION)

    assert masked == (["eyJ.access", "refresh-1"] if masks else [])
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "a task of Airflow 2")
    VariableStore(CODEC).mask(SESSION)
    assert (len(masked) > 0) is (channel != "TriggerCommsDecoder")
