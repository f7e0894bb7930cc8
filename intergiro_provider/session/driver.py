# SPDX-License-Identifier: Apache-2.0
"""Run the session protocol against the store and the bank, for all threads of this process.

A renewal runs in its own thread, including all access to the store. Otherwise a signal to the caller, such as an
execution timeout, could interrupt an exchange with Airflow's supervisor or with the bank. Every later request of this
process would then get the response to an earlier one.
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
from intergiro_provider.session.distributed_lock import DistributedLock
from intergiro_provider.session.documents import Document, Slot, TokenPair
from intergiro_provider.session.effects import (
    Abandoned,
    BankResponse,
    BankTime,
    CheckKey,
    ConfirmAbsent,
    Effect,
    KeyChanged,
    LogIn,
    Moment,
    NewNonce,
    Now,
    Outcome,
    Probe,
    Read,
    Refresh,
    Renewed,
    Renewer,
    Sleep,
    Why,
    Write,
)
from intergiro_provider.session.errors import waited_too_long
from intergiro_provider.session.renewal import Renewal
from intergiro_provider.session.renewal_locks import RenewalLocks
from intergiro_provider.session.report import Metrics, NoMetrics, Report
from intergiro_provider.session.timings import Timings
from intergiro_provider.session.triggerer_loop import loop_of_this_thread, work_for

log = logging.getLogger("intergiro_provider.session")

LONG_WAIT = 5.0
"""Seconds of waiting after which the reason is logged."""
WAITS: dict[Why, str] = {
    "holder": "Waiting for the Intergiro session: another task is renewing it. If that task ends without a result, "
    "this task takes over after %(takeover).0f s.",
    "limited": "Waiting for the Intergiro session: the bank has returned 429. The next request follows after the wait "
    "that the bank asks for, within %(wait).0f s.",
    "settle": "Waiting for the Intergiro session: an interrupted renewal may still store a token pair, so this task "
    "waits %(settle_session).0f s before it logs in.",
}


class Store(Protocol):
    """Where the documents are kept; see :class:`~intergiro_provider.session.store.VariableStore`."""

    name: str

    def read(self, slot: Slot) -> Document | None: ...

    def write(self, slot: Slot, document: Document) -> None: ...

    def is_absent(self, slot: Slot) -> bool: ...

    def mask(self, pair: TokenPair) -> None: ...


class Bank(Protocol):
    """The requests of a renewal. None is repeated automatically, and each ends within a known time."""

    def probe(self, access_token: str, refused_path: str) -> BankResponse: ...

    def refresh(self, refresh_token: str) -> BankResponse: ...

    def log_in(self) -> BankResponse: ...

    def time(self, exact: bool) -> Moment:
        """Return the time by the bank's clock if it is known, otherwise by ours; `exact`: request it if necessary."""

    def has_current_key(self) -> bool:
        """Read the connection again; return whether it still has this origin and API key."""


@dataclass(slots=True)
class _Cache:
    """One session, as the threads of this process share it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    pair: TokenPair | None = None


_caches: dict[tuple[str, str], _Cache] = {}
_caches_lock = threading.Lock()
_running: set[_Run] = set()
_stops = 0
"""How many times :func:`finish_renewals` was called."""


def _forget_after_fork() -> None:
    global _caches_lock
    # If another thread of the parent holds the lock, it would stay locked in the child.
    _caches_lock = threading.Lock()
    _caches.clear()
    _running.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


def finish_renewals() -> None:
    """End the renewals of this process at the next safe point, and wait for them.

    Call this before the process ends while other threads make requests: otherwise a new token pair could be lost.
    Threads that wait for one of these renewals do not start their own.
    """
    global _stops
    _stops += 1
    running = tuple(_running)
    for run in running:
        run.abandon()
    for run in running:
        run.wait()


class SharedSession:
    """The session of one origin and API key in this process.

    :param store: stores the session.
    :param bank: makes the requests of a renewal.
    :param me: this process.
    :param open_lock: creates the distributed lock of one renewal; None: there is none.
    :param metrics: receives counters and timers; None: no metrics.
    :param reopen: opens the session of the API key that the connection has now; None: a changed key is an error.
    """

    def __init__(
        self,
        store: Store,
        bank: Bank,
        me: Renewer,
        timings: Timings,
        open_lock: Callable[[], DistributedLock] | None = None,
        metrics: Metrics | None = None,
        reopen: Callable[[], SharedSession] | None = None,
    ) -> None:
        self._store = store
        self._bank = bank
        self._me = me
        self._timings = timings
        self._open_lock = open_lock
        self._metrics = metrics or NoMetrics()
        self._reopen = reopen
        self._next: SharedSession | None = None

    def current(self) -> TokenPair:
        """Return the pair for the next request: the cached one, otherwise the stored one, otherwise a new one."""
        return self.obtain().pair

    def obtain(self) -> Renewed:
        """Return the same pair as :meth:`current`, with the way in which it was obtained."""
        if self._next is not None:
            return self._next.obtain()
        cached = self._cache().pair
        return Renewed(cached, "found") if cached is not None else self._renew(None, "")

    def renew(self, rejected: TokenPair, refused_path: str) -> Renewed:
        """Return a pair that replaces the one to which the bank has just returned 401.

        :param rejected: the pair that was refused.
        :param refused_path: the path of the refused request; the session is probed on another path.
        :raises IntergiroError: there is no session. The class says why.
        """
        if self._next is not None:
            return self._next.renew(rejected, refused_path)
        # With another key it belongs to another session, and generations cannot be compared.
        is_mine = rejected.key == self._me.key
        return self._renew(rejected, refused_path) if is_mine else self.obtain()

    def _cache(self) -> _Cache:
        key = (self._store.name, self._me.key)
        with _caches_lock:
            return _caches.setdefault(key, _Cache())

    def _renew(self, rejected: TokenPair | None, refused_path: str) -> Renewed:
        began, stops, cache = time.monotonic(), _stops, self._cache()
        longest = self._timings.wait + self._timings.persist_until + self._timings.store
        if not cache.lock.acquire(timeout=longest):
            raise waited_too_long(longest)
        try:
            known = cache.pair
            if known is not None and known.supersedes(rejected):
                return Renewed(known, "found")
            if stops != _stops:
                raise Abandoned
            if time.monotonic() - began > self._timings.wait:
                raise waited_too_long(self._timings.wait)
            renewed = _Run(self, rejected, refused_path, began).run()
            cache.pair = renewed.pair
            return renewed
        except KeyChanged:
            if self._next is None and self._reopen is not None:
                self._next = self._reopen()
                log.info(
                    "The connection %s now holds another API key. This task continues with it.", self._me.connection
                )
        finally:
            cache.lock.release()
        if self._next is None:
            raise StoreUnavailable(
                f"The API key of the connection {self._me.connection} has changed. The old key was not used again, and "
                "the task can be retried with the new one."
            )
        return self._next.obtain()


class _Run:
    """One renewal, which runs in its own thread.

    :param began: monotonic seconds from which the deadline counts.
    """

    def __init__(self, shared: SharedSession, rejected: TokenPair | None, refused_path: str, began: float) -> None:
        self._store = shared._store
        self._bank = shared._bank
        self._me = shared._me
        self._timings = shared._timings
        self._rejected = rejected
        self._refused_path = refused_path
        self._began = began
        self._renewal: Renewal | None = None
        self._abandoned = threading.Event()
        self._locks = RenewalLocks(self._store.name, self._timings, shared._open_lock, self._abandoned)
        self._report = Report(shared._metrics, self._store.name, self._me.name)
        # Acquired once: by the thread when it begins, or by a caller that is interrupted before. Then it does nothing.
        self._begun = threading.Lock()
        self._done = threading.Event()
        self._slept: dict[Why, float] = {}
        self._result: Renewed | None = None
        self._error: BaseException | None = None

    def run(self) -> Renewed:
        """Run the renewal and wait. An exception during the wait is raised at the renewal's next safe point."""
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._work, loop_of_this_thread()), name="intergiro-renewal"
        )
        try:
            _running.add(self)
            thread.start()
            # Not join(): before Python 3.13, a join that a signal interrupts reports the thread as ended.
            self._done.wait()
        except BaseException:
            if self._begun.acquire(blocking=False):  # start() was interrupted or failed
                self._ended()
            self.abandon()
            self.wait()
            raise
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise StoreUnavailable("The renewal of the Intergiro session ended without a result.")
        return self._result

    def abandon(self) -> None:
        """End the renewal at its next safe point."""
        self._abandoned.set()
        if self._renewal is not None:
            self._renewal.abandon()

    def wait(self) -> None:
        """Wait for the end of the renewal."""
        self._done.wait()

    def _work(self, loop: AbstractEventLoop | None) -> None:
        if not self._begun.acquire(blocking=False):
            return
        work_for(loop)
        began = time.monotonic()
        try:
            self._result = self._locked()
            # In this thread, because it uses the supervisor too.
            self._store.mask(self._result.pair)
        except BaseException as error:
            self._error = error
        finally:
            # If the log cannot be written, the session must not be lost.
            with contextlib.suppress(Exception):
                self._tell(time.monotonic() - began)
            self._ended()

    def _ended(self) -> None:
        _running.discard(self)
        self._done.set()

    def _tell(self, took: float) -> None:
        if self._result is not None:
            self._report.ended(self._result, took)
        elif self._error is not None:
            self._report.failed(self._error)

    def _locked(self) -> Renewed:
        """Renew under the locks; without them if another process has stored a pair."""
        try:
            pair = self._look()
            if pair is None:
                self._report.waited = True
                pair = self._locks.acquire(self._look, self._began)
            if pair is not None:
                return Renewed(pair, "found")
            self._me = replace(self._me, lock=self._locks.fingerprint)
            return self._drive()
        finally:
            self._locks.release()

    def _look(self) -> TokenPair | None:
        pair = self._store.read("session")
        return pair if isinstance(pair, TokenPair) and pair.supersedes(self._rejected) else None

    def _drive(self) -> Renewed:
        self._renewal = Renewal(self._me, self._rejected, self._timings)
        if self._abandoned.is_set():
            raise Abandoned
        protocol = self._renewal.run(time.monotonic() - self._began)
        result: Any = None
        failure: IntergiroError | None = None
        while True:
            try:
                effect = protocol.throw(failure) if failure is not None else protocol.send(result)
            except StopIteration as end:
                renewed: Renewed = end.value
                return renewed
            result, failure = None, None
            try:
                result = self._perform(effect)
            except IntergiroError as error:
                failure = error

    def _perform(self, effect: Effect) -> Any:
        # Bind no token to a name here: a traceback with local variables would show it.
        match effect:
            case Read(slot):
                return self._store.read(slot)
            case Write(slot, document):
                if slot == "lease":
                    # Without the distributed lock, the lease needs its waiting times.
                    self._locks.check()
                return self._store.write(slot, document)
            case ConfirmAbsent(slot):
                return self._store.is_absent(slot)
            case Now():
                return time.monotonic()
            case BankTime(exact):
                return self._bank.time(exact)
            case Sleep():
                return self._sleep(effect)
            case NewNonce():
                return secrets.token_hex(8)
            case CheckKey():
                return self._bank.has_current_key()
            case Probe():
                self._locks.check()
                return self._bank.probe(effect.access_token, self._refused_path)
            case Refresh():
                self._locks.check()
                refreshed = self._bank.refresh(effect.refresh_token)
                self._report.refused += refreshed.outcome is Outcome.REFUSED
                return refreshed
            case LogIn():
                self._locks.check()
                return self._bank.log_in()

    def _sleep(self, sleep: Sleep) -> None:
        self._locks.keep()
        before = self._slept.get(sleep.why, 0.0)
        self._slept[sleep.why] = before + sleep.seconds
        if sleep.why and before < LONG_WAIT <= before + sleep.seconds:
            log.info(WAITS[sleep.why], {name: getattr(self._timings, name) for name in self._timings.__slots__})
        if sleep.jitter:
            # Only pauses between attempts have jitter. The others are timing conditions, which must not be cut short.
            self._abandoned.wait(sleep.seconds + random.uniform(0, sleep.jitter))  # noqa: S311
        else:
            time.sleep(sleep.seconds)
