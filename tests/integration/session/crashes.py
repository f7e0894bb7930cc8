# SPDX-License-Identifier: Apache-2.0
"""One fleet in which a signal hits the renewing process, and the progress of the other processes.

Three processes use the hook as tasks do, with real Variables and a sandbox. `running` exists before. `victim` begins
the renewal and gets the signal. `fresh` starts on the victim's host afterwards. `running` and `fresh` must complete
this renewal and the next one.
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
    bank_pause=0.5,
)
"""The timings of production with direct database access, shortened as far as a busy machine allows."""
TTL = 4.8
"""The TTL of the Redis lock in seconds, in the same proportion to the takeover as in production."""
PATIENCE = 120.0
"""Seconds after the deadline of one renewal within which the other processes must continue."""


@dataclass(frozen=True)
class Case:
    """A fleet, and the point at which a signal hits its renewing process.

    :param start: cold: there is no session; expired: its access token has expired; ended: the bank has ended it.
    :param world: how the bank responds to a refresh token that was used before.
    :param lock: the kind of the distributed lock; empty: none.
    :param strike: the point; None: there is no signal, to list the steps.
    :param real: whether to use the timings of production.
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
    """The arguments of one process of a fleet; can be pickled.

    :param environment: environment variables with its connections.
    :param locks: the lock directory, which processes of one host share.
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
    """The report of a process on one call.

    :param at: the time of the response, by the clock of this machine.
    :param errors: the errors of earlier attempts. As with Airflow's retries, the call is repeated.
    """

    at: float
    ok: bool
    errors: tuple[str, ...] = ()


@dataclass
class Result:
    """The result of a fleet.

    :param struck: whether the victim reached the step.
    :param struck_at: the time of the signal, by the clock of this machine.
    :param counters: the bank's counters when all processes had continued.
    :param later: the bank's counters after one more renewal.
    :param session: the stored session at the end.
    :param works: whether the bank accepts the stored session at the end.
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
    """Run a process of the fleet: send a request for each message on the pipe, and report the result."""
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

    :param number: distinguishes its Variables from those of other fleets.
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
        """Run the fleet from a session in use to the second renewal. The signal hits the victim in the first one."""
        case, bank = self.case, self._bank
        bank.reset()
        for slot in get_args(Slot):  # the counters of the previous fleet at this bank
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
        """Wait until the victim is stopped. Return None, or its report if it does not reach the step."""
        victim = self._members["victim"]
        while not victim.is_stopped():
            if victim.has_said() and (heard := victim.hear()) != "leased":
                return heard
            time.sleep(0.01)
        return None

    def _answer(self, member: InProcess) -> Any:
        """Return the report on the requested call; None if the process has been killed."""
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
        return requests.get(f"{self._bank.url}/v3/accounts", headers=headers, timeout=60).status_code == 200
