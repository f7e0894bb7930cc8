# SPDX-License-Identifier: Apache-2.0
"""One fleet in which the renewing process is struck by a signal, and what became of the others.

Three processes with the hook as tasks use it, real Variables and a sandbox: `running` has been there before, `victim`
begins the renewal and is struck, `fresh` starts on the victim's host afterwards. The two others have to go on, through
this renewal and through the next one.
"""

from __future__ import annotations

import functools
import os
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import requests

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.hooks import intergiro
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.sandbox.counters import Counters
from intergiro_provider.session.codec import Codec
from intergiro_provider.session.documents import LoginHistory, Slot, TokenPair
from intergiro_provider.session.locks import open_lock
from intergiro_provider.session.store import VariableStore
from intergiro_provider.session.timings import Timings
from tests.integration.session.members import InProcess
from tests.integration.session.steps import Diary, Entry, Steps, Strike

Start = Literal["cold", "expired", "ended"]
World = Literal["refused", "revokes", "works"]

SHRUNK = Timings(
    call=0.8,
    lease_write=float("inf"),
    lease_round=0.6,
    settle_lease=0.7,
    lock_check=0.3,
    critical=2.9,
    takeover=6.0,
    settle_session=0.9,
    wait=20.0,
    persist=0.3,
    store=0.4,
    repeat=0.1,
    reserve=0.5,
    poll=0.15,
    bank_verdict=0.5,
)
"""The times of production with direct database access, shrunk as far as a busy machine allows."""
TTL = 4.8
"""Of the Redis lock, in seconds: as 120 s are to the takeover of production."""
PATIENCE = 30.0
"""Seconds beyond the deadline of one renewal in which the others have to be back at work."""


@dataclass(frozen=True)
class Case:
    """A fleet, and where its renewing process is struck.

    :param start: cold: there is no session; expired: its access token has expired; ended: the bank has ended it.
    :param world: what the bank does with a refresh token that was used before.
    :param lock: kind of the distributed lock; "" for none.
    :param strike: None: nobody is struck, for a list of the steps.
    :param real: with the times of production.
    """

    start: Start
    world: World = "refused"
    lock: str = ""
    strike: Strike | None = None
    real: bool = False

    @property
    def wait(self) -> float:
        return (Timings() if self.real else SHRUNK).wait + PATIENCE


@dataclass(frozen=True)
class Part:
    """What one process of a fleet is told; may be sent to it.

    :param environment: its connections.
    :param locks: lock directory; processes of one host share it.
    """

    who: str
    case: Case
    conn_id: str
    url: str
    environment: dict[str, str]
    locks: Path
    diary: Diary
    strike: Strike | None = None


@dataclass(frozen=True)
class Said:
    """What a process tells of one call.

    :param at: when it had its answer, by the shared clock.
    :param errors: what it raised before; tasks are tried again by Airflow.
    """

    at: float
    ok: bool
    errors: tuple[str, ...] = ()


@dataclass
class Result:
    """What became of a fleet.

    :param struck: whether the victim came as far as the step.
    :param struck_at: when, by the shared clock.
    :param counters: of the bank, once everybody was back at work.
    :param later: of the bank, after one more renewal.
    :param session: what is stored in the end.
    :param works: whether the bank accepts what is stored in the end.
    """

    case: Case
    struck: bool
    struck_at: float
    said: dict[str, Said]
    counters: Counters
    later: Counters
    entries: list[Entry]
    session: TokenPair | None
    history: LoginHistory | None
    works: bool
    went_on: float = 0.0
    violations: list[str] = field(default_factory=list)


def take_part(part: Part, pipe: Any) -> None:
    """A process of the fleet: makes a call each time it is told to, and tells what came of it."""
    os.environ.update(part.environment)
    tempfile.tempdir = str(part.locks)
    if not part.case.real:
        intergiro._timings = lambda: SHRUNK  # type: ignore[assignment]
        intergiro.open_lock = functools.partial(open_lock, ttl=TTL)  # type: ignore[assignment]
    leased: list[str] = []

    def at(step: str) -> None:
        if part.who == "victim" and step == "write lease" and not leased:
            leased.append(step)
            pipe.send("leased")

    Steps(part.diary, part.who, part.url, part.strike, at).watch()
    hook = intergiro.IntergiroHook(part.conn_id)
    while pipe.recv() == "call":
        pipe.send(_call(hook, part.case.wait))


def _call(hook: intergiro.IntergiroHook, patience: float) -> Said:
    until, errors = time.monotonic() + patience, []
    while time.monotonic() < until:
        try:
            hook.run("accounts", {"limit": 1})
            return Said(time.monotonic(), True, tuple(errors))
        except IntergiroError as error:
            errors.append(type(error).__name__)
            time.sleep(0.2)
    return Said(time.monotonic(), False, tuple(errors))


class Fleet:
    """The processes of one case.

    :param number: tells its Variables from those of other fleets.
    :param locks: the connections of the distributed locks, as JSON.
    """

    def __init__(self, case: Case, number: int, bank: Sandbox, directory: Path, locks: dict[str, str]) -> None:
        self.case, self._bank = case, bank
        self._conn_id = f"fleet_{number}"
        self._directory = directory / self._conn_id
        self._directory.mkdir()
        self.diary = Diary(self._directory / "diary.jsonl")
        self._members: dict[str, InProcess] = {}
        extra = {"lock_conn_id": "lock"} if case.lock else {}
        self._environment = {
            f"AIRFLOW_CONN_{self._conn_id.upper()}": bank.connection(**extra),
            "AIRFLOW_CONN_LOCK": locks[case.lock] if case.lock else "",
        }

    @property
    def store(self) -> VariableStore:
        return VariableStore(Codec(self._bank.url, self._bank.api_key))

    def start(self, who: str, host: str) -> InProcess:
        locks = self._directory / host
        locks.mkdir(exist_ok=True)
        strike = self.case.strike if who == "victim" else None
        part = Part(who, self.case, self._conn_id, self._bank.url, self._environment, locks, self.diary, strike)
        process = self._members[who] = InProcess(take_part, part)
        return process

    def stop(self) -> None:
        for process in self._members.values():
            process.end()

    def run(self) -> Result:
        """From a session in use to the renewal after the one in which the victim was struck."""
        case, bank = self.case, self._bank
        bank.reset()
        for slot in get_args(Slot):  # of the bank's previous fleet
            self.store.delete(slot)
        bank.set(old_refresh_token=case.world)
        running = self.start("running", "host-b")
        if case.start != "cold":
            running.say("call")
            assert running.hear(case.wait).ok
            assert bank.end_sessions() if case.start == "ended" else bank.expire_access_tokens()
        victim = self.start("victim", "host-a")
        victim.say("call")
        said = {}
        stops = case.strike is not None and case.strike.signal == signal.SIGSTOP
        heard = self._stopped() if stops else victim.hear(case.wait)
        running.say("call")
        if heard == "leased":
            heard = self._answer(victim)
        struck = any(entry.kind == "strike" for entry in self.diary.entries())
        fresh = self.start("fresh", "host-a")
        fresh.say("call")
        said["running"], said["fresh"] = self._answer(running), self._answer(fresh)
        others = [running, fresh]
        if struck and stops:
            victim.signal(signal.SIGCONT)
            heard = self._answer(victim)
        if isinstance(heard, Said):
            said["victim"] = heard
            if struck:
                others.append(victim)
        counters = bank.counters()
        self._next_renewal(said, others)
        session, history = self.store.read("session"), self.store.read("logins")
        assert session is None or isinstance(session, TokenPair)
        assert history is None or isinstance(history, LoginHistory)
        later = bank.counters()
        entries = self.diary.entries()
        struck_at = next((entry.at for entry in entries if entry.kind == "strike"), 0.0)
        first = min((s.at for who, s in said.items() if who in ("running", "fresh") and s.ok), default=0.0)
        return Result(
            case,
            struck,
            struck_at,
            said,
            counters,
            later,
            entries,
            session,
            history,
            self._works(session),
            went_on=first - struck_at if struck else 0.0,
        )

    def _stopped(self) -> Any:
        """Wait until the victim stands still: None; or what it says in the end where it never comes as far."""
        victim = self._members["victim"]
        while not victim.is_stopped():
            if victim.has_said() and (heard := victim.hear()) != "leased":
                return heard
            time.sleep(0.01)
        return None

    def _answer(self, member: InProcess) -> Any:
        """What came of the call that it was told to make; None where it has died."""
        heard = member.hear(self.case.wait + PATIENCE)
        return heard if heard != "leased" else member.hear(self.case.wait + PATIENCE)

    def _next_renewal(self, said: dict[str, Said], others: list[InProcess]) -> None:
        self._bank.expire_access_tokens()
        for member in others:
            member.say("call")
        for number, member in enumerate(others):
            said[f"later {number}"] = self._answer(member)

    def _works(self, session: TokenPair | None) -> bool:
        if session is None:
            return False
        headers = {"Authorization": f"Bearer {session.access_token}"}
        return requests.get(f"{self._bank.url}/v3/accounts", headers=headers, timeout=5).status_code == 200
