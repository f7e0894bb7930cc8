# SPDX-License-Identifier: Apache-2.0
"""What a fault comes to: tasks are run while it lasts and after it, and compared with the row of the table."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from sqlalchemy import delete, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session as Transaction

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session import driver
from intergiro_provider.session.codec import Codec
from intergiro_provider.session.documents import Lease, LoginHistory, TokenPair, session_name
from intergiro_provider.session.store import SUFFIXES
from intergiro_provider.session.timings import Timings
from tests.integration.outages.proxy import Proxy
from tests.integration.outages.table import FINALLY, GOES_ON, RETRIABLY, Row

SHORT = Timings(
    call=2.0,
    lease_write=float("inf"),
    lease_round=0.3,
    settle_lease=0.4,
    lock_check=0.3,
    critical=4.5,
    takeover=8.5,
    settle_session=2.2,
    wait=20.0,
    persist=0.5,
    store=0.6,
    repeat=0.3,
    reserve=0.8,
    poll=0.2,
    bank_verdict=1.0,
)
"""The times of production, shrunk together, where Variables are in the database."""


@dataclass
class Outcome:
    """How one task ended, and what it said."""

    error: IntergiroError | None
    log: str

    @property
    def does(self) -> str:
        if self.error is None:
            return GOES_ON
        return FINALLY if isinstance(self.error, AirflowFailException) else RETRIABLY

    @property
    def text(self) -> str:
        return self.log if self.error is None else str(self.error)


@dataclass
class World:
    """One connection, its bank behind a proxy, and its Variables in a database.

    :param engine: of the metadata database, past everything that may be at fault.
    """

    bank: Sandbox
    line: Proxy
    engine: Engine
    caplog: pytest.LogCaptureFixture
    monkeypatch: pytest.MonkeyPatch
    extra: dict[str, Any] = field(default_factory=dict)
    conn_id: str = field(default_factory=lambda: f"bank_{uuid.uuid4().hex[:8]}")
    _before: int = 0

    def __post_init__(self) -> None:
        self.connect()

    def connect(self, **fields: Any) -> None:
        """Write the connection, with these fields changed."""
        described = {**json.loads(self.bank.connection()), "port": self.line.port, "extra": self.extra, **fields}
        self.monkeypatch.setenv(f"AIRFLOW_CONN_{self.conn_id.upper()}", json.dumps(described))

    @property
    def variable(self) -> str:
        return session_name(self._codec.key)

    @property
    def _codec(self) -> Codec:
        settings = IntergiroHook(self.conn_id).settings
        return Codec(settings.origin, settings.api_key)

    # Tasks.

    def attempt(self, new: bool = True) -> Outcome:
        """Run a task; `new`: in a process of its own, with nothing in memory."""
        if new:
            driver._caches.clear()
        self.caplog.clear()
        error: IntergiroError | None = None
        try:
            assert IntergiroHook(self.conn_id).run("accounts", {"limit": 1}).ok
        except IntergiroError as raised:
            error = raised
        said = [r.getMessage() for r in self.caplog.records if r.name.startswith("intergiro_provider")]
        return Outcome(error, "\n".join(said))

    def begin(self, refreshed: bool = True) -> None:
        """Have a session, as one has in the middle of a day; what happens from now on is counted."""
        self.succeed()
        if refreshed:
            self.bank.expire_access_tokens()
            self.succeed()
        self.count()

    def succeed(self) -> None:
        """A task that must go well."""
        outcome = self.attempt()
        assert outcome.error is None, outcome.text

    def count(self) -> None:
        """Count from here on."""
        self._before = self.bank.counters().logins

    @property
    def logins(self) -> int:
        """Logins that the bank has let in since then."""
        return self.bank.counters().logins - self._before

    # Variables.

    def stored(self, slot: Any = "session") -> Any:
        """The document in the database, whatever any process sees of it; None if there is none."""
        with Transaction(self.engine) as session:
            row = session.scalar(select(self._model()).where(self._model().key == self._key(slot)))
            return row and self._codec.decode(slot, row.get_val())

    def text(self, document: TokenPair | Lease | LoginHistory, slot: Any = "session") -> str:
        """The document as it is stored."""
        return self._codec.encode(slot, document)

    def put(self, document: TokenPair | Lease | LoginHistory | str | None, slot: Any = "session") -> None:
        """Write a Variable as a person does, by the UI or by a restored backup."""
        text = self.text(document, slot) if isinstance(document, TokenPair | Lease | LoginHistory) else document
        with Transaction(self.engine) as session, session.begin():
            session.execute(delete(self._model()).where(self._model().key == self._key(slot)))
            if text is not None:
                session.add(self._model()(key=self._key(slot), val=text))

    def _key(self, slot: Any) -> str:
        return str(self.variable + SUFFIXES[slot])

    @staticmethod
    def _model() -> Any:
        from airflow.models.variable import Variable

        return Variable

    # The table.

    def check(self, row: Row, outcome: Outcome) -> None:
        """The task has done what the row says, and the user has read what it says."""
        assert outcome.does == row.does, outcome.text
        assert type(outcome.error).__name__ == (row.error or "NoneType"), outcome.text
        place = 0
        for part in row.reads.split("…"):
            found = outcome.text.find(part.strip(), place)
            assert found >= 0, f"{part.strip()!r} is not in: {outcome.text}"
            place = found
        leaked = [secret for secret in [*self.bank.tokens(), self.bank.api_key] if secret in outcome.text]
        assert not leaked
        with suppress(AttributeError):
            assert outcome.error is None or outcome.error.__cause__ is None

    def check_logins(self, row: Row, own: int = 0) -> None:
        """The whole fault has cost as many logins as the row says, and no refresh that could have been spared.

        :param own: logins that were due without the fault, too.
        """
        assert self.logins - own == row.logins
        assert self.bank.counters().refresh_early == 0
