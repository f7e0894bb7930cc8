# SPDX-License-Identifier: Apache-2.0
"""The effect of a fault: tasks run during the fault and after it, and are compared with the row of the table."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from sqlalchemy import delete, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session as Transaction

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.hooks import intergiro as hooks
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session import driver
from intergiro_provider.session.codec import Codec
from intergiro_provider.session.documents import Lease, LoginHistory, TokenPair, session_name
from intergiro_provider.session.store import SUFFIXES
from intergiro_provider.session.timings import Timings
from tests.integration.outages.proxy import Proxy
from tests.integration.outages.table import FINALLY, GOES_ON, RETRIABLY, Row
from tests.timings import ALONE

SHORT = replace(ALONE, settle_lease=0.1, settle_session=0.5, takeover=3.0, critical=20.0, repeat=0.3, bank_pause=1.0)
UNREACHABLE = replace(SHORT, critical=4.5)
"""For an outage that a task does not outlast. It tries again until this time."""


@dataclass
class Outcome:
    """The end of one task, and its log."""

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

    :param engine: the engine of the metadata database, without any proxy.
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
        """Store the connection, with these fields changed."""
        described = {**json.loads(self.bank.connection()), "port": self.line.port, "extra": self.extra, **fields}
        self.monkeypatch.setenv(f"AIRFLOW_CONN_{self.conn_id.upper()}", json.dumps(described))

    @property
    def variable(self) -> str:
        return session_name(self._codec.key)

    @property
    def _codec(self) -> Codec:
        settings = IntergiroHook(self.conn_id).settings
        return Codec(settings.origin, settings.api_key)

    def timings(self, timings: Timings) -> None:
        """Let the following tasks renew with these timings."""
        self.monkeypatch.setattr(hooks, "_timings", lambda: timings)

    # Tasks.

    def attempt(self, new: bool = True) -> Outcome:
        """Run a task.

        :param new: whether to run it as in a new process, without cached sessions.
        """
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
        """Create a session with an earlier renewal, and start to count."""
        self.succeed()
        if refreshed:
            self.bank.expire_access_tokens()
            self.succeed()
        self.count()

    def succeed(self) -> None:
        """Run a task that must succeed."""
        outcome = self.attempt()
        assert outcome.error is None, outcome.text

    def count(self) -> None:
        """Start to count."""
        self._before = self.bank.counters().logins

    @property
    def logins(self) -> int:
        """Return the number of successful logins since the start of the count."""
        return self.bank.counters().logins - self._before

    # Variables.

    def stored(self, slot: Any = "session") -> Any:
        """Return the document in the database, whatever a process can see; None if there is none."""
        with Transaction(self.engine) as session:
            row = session.scalar(select(self._model()).where(self._model().key == self._key(slot)))
            return row and self._codec.decode(slot, row.get_val())

    def text(self, document: TokenPair | Lease | LoginHistory, slot: Any = "session") -> str:
        """Return the document as stored text."""
        return self._codec.encode(slot, document)

    def put(self, document: TokenPair | Lease | LoginHistory | str | None, slot: Any = "session") -> None:
        """Write a Variable as a person does, in the UI or from a backup."""
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
        """Check that the task has ended as the row says, with the texts of the row."""
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
        """Check that the fault has cost the logins of the row, and no unnecessary refresh.

        :param own: the number of logins that were due without the fault.
        """
        assert self.logins - own == row.logins
        assert self.bank.counters().refresh_early == 0
