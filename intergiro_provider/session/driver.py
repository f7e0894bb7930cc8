# SPDX-License-Identifier: Apache-2.0
"""Drives the session protocol against the store and the bank, for every thread of this process.

A renewal runs in a thread of its own, all its reads and writes of Variables included. A signal that interrupts the
caller (an execution timeout, a kill) would otherwise tear apart an exchange with the supervisor or with the bank, and
every later answer in this process would belong to an earlier question.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import random
import secrets
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from intergiro_provider.exceptions import IntergiroError, StoreUnavailable
from intergiro_provider.session.documents import Lease, Ledger, Session
from intergiro_provider.session.effects import (
    Abandoned,
    Answer,
    BankTime,
    ConfirmAbsent,
    CurrentKey,
    Effect,
    LogIn,
    Member,
    Moment,
    NewNonce,
    Now,
    Outcome,
    Probe,
    Read,
    Refresh,
    Renewed,
    Sleep,
    Slot,
    Write,
)
from intergiro_provider.session.guard import Guard, StrictLock
from intergiro_provider.session.loops import loop_of_this_thread, work_for
from intergiro_provider.session.renewal import Renewal
from intergiro_provider.session.report import Metrics, NoMetrics, Report
from intergiro_provider.session.timings import Timings

log = logging.getLogger("intergiro_provider.session")

LONG_WAIT = 5.0
"""Seconds of waiting after which the log says what for."""


class Store(Protocol):
    """Where the documents are kept; see :class:`~intergiro_provider.session.store.VariableStore`."""

    name: str

    def read(self, slot: Slot) -> Session | Lease | Ledger | None: ...

    def write(self, slot: Slot, document: Session | Lease | Ledger) -> None: ...

    def is_absent(self, slot: Slot) -> bool: ...

    def mask(self, session: Session) -> None: ...


class Bank(Protocol):
    """The calls that a renewal makes; none repeats by itself, each ends within a known time."""

    def probe(self, access_token: str, refused_path: str) -> Answer: ...

    def refresh(self, refresh_token: str) -> Answer: ...

    def log_in(self) -> Answer: ...

    def time(self, exact: bool) -> Moment:
        """Now, by the bank's clock or else by ours; `exact`: ask the bank if need be."""

    def current_key(self) -> str:
        """Look the connection up again; the fingerprint of its origin and API key."""


@dataclass(slots=True)
class _Cache:
    """What the threads of this process share of one session."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    session: Session | None = None


_caches: dict[tuple[str, str], _Cache] = {}
_running: set[_Errand] = set()
_caches_lock = threading.Lock()


def _forget_after_fork() -> None:
    global _caches_lock
    # A lock that another thread of the parent held would stay locked in the child for ever.
    _caches_lock = threading.Lock()
    _caches.clear()
    _running.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


def finish_renewals() -> None:
    """End the renewals of this process as soon as nothing of them is half done, and wait for that.

    For a thread that is told to end while others make requests: were the process to end now, a rotated token would be
    lost.
    """
    running = tuple(_running)
    for errand in running:
        errand.abandon()
    for errand in running:
        errand.wait()


class SharedSession:
    """The session of one connection, as this process sees it.

    :param store: where the session is kept.
    :param bank: what renews it.
    :param me: who renews.
    :param open_strict: makes the strict lock of one renewal; None: there is none.
    :param metrics: where numbers go; None: nowhere.
    """

    def __init__(
        self,
        store: Store,
        bank: Bank,
        me: Member,
        timings: Timings,
        open_strict: Callable[[], StrictLock] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._bank = bank
        self._me = me
        self._timings = timings
        self._open_strict = open_strict
        self._metrics = metrics or NoMetrics()

    def current(self) -> Session:
        """The session to send the next request with: cached, else stored, else a new one."""
        return self.obtain().session

    def obtain(self) -> Renewed:
        """As :meth:`current`, and how it was come by: found, or logged in."""
        cached = self._cache().session
        return Renewed(cached, "found") if cached is not None else self._renew(None, "")

    def renew(self, rejected: Session, refused_path: str) -> Renewed:
        """Another session than the one that the bank has just answered 401 to.

        :param rejected: the session that was refused.
        :param refused_path: the path of the refused request, so that the session is proved on another one.
        :raises IntergiroError: whichever says best why there is none.
        """
        return self._renew(rejected, refused_path)

    def _cache(self) -> _Cache:
        key = (self._store.name, self._me.key)
        with _caches_lock:
            return _caches.setdefault(key, _Cache())

    def _renew(self, rejected: Session | None, refused_path: str) -> Renewed:
        cache = self._cache()
        longest = self._timings.wait + self._timings.persist_until + self._timings.store
        if not cache.lock.acquire(timeout=longest):
            raise StoreUnavailable(
                f"Another thread of this task has been renewing the Intergiro session for over {longest:.0f} s."
            )
        try:
            known = cache.session
            if known is not None and (rejected is None or _is_newer(known, rejected)):
                return Renewed(known, "found")
            renewed = _Errand(self, rejected, refused_path).run()
            self._store.mask(renewed.session)
            cache.session = renewed.session
            return renewed
        finally:
            cache.lock.release()


def _is_newer(known: Session, rejected: Session) -> bool:
    return known.identity != rejected.identity and known.gen >= rejected.gen


class _Errand:
    """One renewal, run in a thread of its own."""

    def __init__(self, shared: SharedSession, rejected: Session | None, refused_path: str) -> None:
        self._store = shared._store
        self._bank = shared._bank
        self._me = shared._me
        self._timings = shared._timings
        self._rejected = rejected
        self._refused_path = refused_path
        self._renewal: Renewal | None = None
        self._abandoned = threading.Event()
        self._guard = Guard(self._store.name, self._timings, shared._open_strict, self._abandoned)
        self._report = Report(shared._metrics, self._store.name, self._me.name)
        self._done = threading.Event()
        self._slept = 0.0
        self._result: Renewed | None = None
        self._error: BaseException | None = None

    def run(self) -> Renewed:
        """Run it and wait; an exception that interrupts the wait is raised once nothing is half done."""
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._work, loop_of_this_thread()), name="intergiro-renewal"
        )
        _running.add(self)
        try:
            thread.start()
        except BaseException:
            # Nobody would ever end it, and whoever waits for all of them would wait for ever.
            _running.discard(self)
            raise
        try:
            # Not join(): before Python 3.13 a join that a signal interrupts takes the thread for ended.
            self._done.wait()
        except BaseException:
            self.abandon()
            self.wait()
            raise
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise StoreUnavailable("The renewal of the Intergiro session ended without a result.")
        return self._result

    def abandon(self) -> None:
        """Let it end as soon as nothing is half done."""
        self._abandoned.set()
        if self._renewal is not None:
            self._renewal.abandon()

    def wait(self) -> None:
        """Wait for its end."""
        self._done.wait()

    def _work(self, loop: AbstractEventLoop | None) -> None:
        work_for(loop)
        began = time.monotonic()
        try:
            self._result = self._locked(began)
        except BaseException as error:
            self._error = error
        finally:
            # A log that cannot be written must not cost a session.
            with contextlib.suppress(Exception):
                self._tell(time.monotonic() - began)
            _running.discard(self)
            self._done.set()

    def _tell(self, took: float) -> None:
        if self._result is not None:
            self._report.ended(self._result, took)
        elif self._error is not None:
            self._report.failed(self._error)

    def _locked(self, began: float) -> Renewed:
        """The renewal under its locks; without them where a look at the store is enough."""
        try:
            session = self._look()
            if session is None:
                self._report.waited = True
                session = self._guard.take(self._look, began)
            if session is not None:
                return Renewed(session, "found")
            self._me = replace(self._me, lock=self._guard.fingerprint)
            return self._drive(time.monotonic() - began)
        finally:
            self._guard.release()

    def _look(self) -> Session | None:
        session = self._store.read("session")
        if not isinstance(session, Session) or session.key not in ("", self._me.key):
            return None
        return session if self._rejected is None or _is_newer(session, self._rejected) else None

    def _drive(self, waited: float) -> Renewed:
        self._renewal = Renewal(self._me, self._rejected, self._timings)
        if self._abandoned.is_set():
            raise Abandoned
        protocol = self._renewal.run(waited)
        answer: Any = None
        failure: IntergiroError | None = None
        while True:
            try:
                effect = protocol.throw(failure) if failure is not None else protocol.send(answer)
            except StopIteration as end:
                return _checked(end.value)
            answer, failure = None, None
            try:
                answer = self._perform(effect)
            except IntergiroError as error:
                failure = error

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Read(slot):
                return self._store.read(slot)
            case Write(slot, document):
                if slot == "lease":
                    # Who has lost the strict lock must not go on taking the lease as if there were no waiting times.
                    self._guard.make_sure()
                return self._store.write(slot, document)
            case ConfirmAbsent(slot):
                return self._store.is_absent(slot)
            case Now():
                return time.monotonic()
            case BankTime(exact):
                return self._bank.time(exact)
            case Sleep(seconds, jitter):
                return self._sleep(seconds, jitter)
            case NewNonce():
                return secrets.token_hex(8)
            case CurrentKey():
                return self._bank.current_key()
            case Probe(access_token):
                self._guard.make_sure()
                return self._bank.probe(access_token, self._refused_path)
            case Refresh(refresh_token):
                self._guard.make_sure()
                refreshed = self._bank.refresh(refresh_token)
                self._report.refused += refreshed.outcome is Outcome.REFUSED
                return refreshed
            case LogIn():
                self._guard.make_sure()
                return self._bank.log_in()

    def _sleep(self, seconds: float, jitter: float) -> None:
        self._guard.keep()
        before, self._slept = self._slept, self._slept + seconds
        if before < LONG_WAIT <= self._slept:
            log.info(
                "Waiting for the Intergiro session: another task is renewing it, or has been and may have died. "
                "At most %.0f s.",
                self._timings.wait,
            )
        if jitter:
            # Only pauses between attempts have jitter; the others are timing conditions and must be slept through.
            self._abandoned.wait(seconds + random.uniform(0, jitter))  # noqa: S311
        else:
            time.sleep(seconds)


def _checked(value: object) -> Renewed:
    if not isinstance(value, Renewed):
        raise TypeError("the session protocol must end with a Renewed")
    return value
