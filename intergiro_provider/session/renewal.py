# SPDX-License-Identifier: Apache-2.0
"""The renewal of a shared session, as a protocol without I/O.

Many processes share one session, in a store without compare-and-swap. A lease decides which of them may renew it. The
lease is exclusive because each process checks its own timing (Fischer's mutual exclusion). A thread lock, a lock file
and, if configured, a distributed lock reduce the contention. This module acquires the lease; :mod:`.holder` contains
what the holder of the lease does.

:meth:`Renewal.run` is a generator: it yields :mod:`effects <.effects>` and receives their results. In production, the
same code runs against a store and the bank, and in the tests against a simulated world with crashes.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.budget import CALL_SLACK, next_allowed
from intergiro_provider.session.documents import Lease, LoginHistory, TokenPair
from intergiro_provider.session.effects import (
    Abandoned,
    BankTime,
    ConfirmAbsent,
    Effect,
    Moment,
    NewNonce,
    Now,
    Read,
    Renewed,
    Renewer,
    Sleep,
    Why,
    Write,
)
from intergiro_provider.session.errors import (
    bank_limited,
    bank_was_unavailable,
    budget_exhausted,
    key_refused,
    lock_mismatch,
    shadowed,
    store_too_slow,
    waited_too_long,
)
from intergiro_provider.session.holder import Holder
from intergiro_provider.session.timings import Timings

LEASE_WRITES = 3
SLOW_WRITES = 2
UNREAD_WRITES = 2

Step = Generator[Effect, Any, Any]


class Renewal:
    """One renewal by one process.

    :param me: this process.
    :param rejected: the token pair for which the bank returned 401; None: the caller has none.
    """

    def __init__(self, me: Renewer, rejected: TokenPair | None, timings: Timings) -> None:
        self._abandoned = False
        self._me = me
        self._rejected = rejected
        self._timings = timings
        self._started = 0.0
        self._waits_for: Why = ""
        self._watched = ""
        self._watched_since = 0.0
        self._own_nonces: set[str] = set()
        self._failed_writes = 0
        self._slow_writes = 0
        self._unread_writes = 0
        self._unsettled = False
        self._settle = False
        self._refused = ("", 0.0)
        self._unspent: set[str] = set()

    def run(self, waited: float = 0.0) -> Generator[Effect, Any, Renewed]:
        """Run the protocol and return its result.

        :param waited: seconds already spent waiting for locks; they count towards the deadline.
        :raises IntergiroError: there is no session. The class says why, and no token is lost.
        :raises Abandoned: :meth:`abandon` was called before the first request to the bank.
        :raises KeyChanged: the connection now has another key.
        """
        self._started = (yield Now()) - waited
        while True:
            renewed: Renewed | None = yield from self._attempt()
            if renewed is not None:
                return renewed
            yield Sleep(self._timings.poll, jitter=self._timings.poll, why=self._waits_for)
            if (yield Now()) - self._started > self._timings.wait:
                if self._waits_for == "limited":
                    raise bank_limited(self._timings.bank_pause)
                raise waited_too_long(self._timings.wait)

    def abandon(self) -> None:
        """End at the next safe point."""
        self._abandoned = True

    def _is_abandoned(self) -> bool:
        return self._abandoned

    def _attempt(self) -> Step:
        """Go from the first read to a token pair; None: another process has changed something, start again."""
        if self._is_abandoned():
            raise Abandoned
        self._waits_for = ""
        pair: TokenPair | None = yield Read("session")
        if pair is not None and pair.supersedes(self._rejected):
            return Renewed(pair, "found")
        if pair is not None and pair.lock not in (None, self._me.lock):
            raise lock_mismatch()
        # If the session only seems to be missing, its lease must be respected.
        if pair is None and not (yield ConfirmAbsent("session")):
            return None
        moment: Moment = yield BankTime(exact=pair is None and (yield Read("lease")) is not None)
        began = yield Now()
        lease: Lease | None = yield Read("lease")
        if lease is None and not (yield ConfirmAbsent("lease")):
            return None
        gen = pair.gen if pair is not None else 0
        backwards = pair is not None and lease is not None and lease.gen > gen
        if backwards:
            if (yield Read("session")) != pair:
                return None
            gen = lease.gen  # type: ignore[union-attr] # see `backwards`
        # Under a distributed lock no wait is needed, once a stored pair shows that all other tasks use the lock too.
        agreed = self._me.exclusive or (pair is not None and pair.lock == self._me.lock)
        locked = self._me.lock is not None and agreed
        if lease is not None and lease.gen == gen:
            if (yield from self._check_last_failure(lease, pair)):
                return None
            if not (locked or self._is_over(lease, moment, pair) or (yield from self._is_free(lease))):
                self._waits_for = "holder"
                return None
        mine = yield from self._write_lease(lease, gen, pair, locked, moment)
        if mine is None:
            return None
        acked = yield Now()
        if not locked:
            if self._too_slow(acked - began, self._timings.lease_round):
                return None
            # After this wait, a task that read the lease before this write has finished its own write, or gives up.
            yield Sleep(self._timings.settle_lease)
        self._slow_writes = 0
        current = yield Read("lease")
        if current is None or current.nonce != mine.nonce:
            self._unread_writes += current is not None and current == lease
            if self._unread_writes >= UNREAD_WRITES:
                raise shadowed()
            return None
        holder = Holder(
            me=self._me,
            rejected=self._rejected,
            timings=self._timings,
            pair=pair,
            lease=mine,
            acked=acked,
            backwards=backwards,
            unsettled=self._unsettled,
            settle=self._unsettled or self._settle,
            unspent=self._unspent,
        )
        if self._is_abandoned():
            yield from holder.release("free")
            raise Abandoned
        renewed = yield from holder.run()
        self._refused = (holder.lease.pair_nonce, holder.lease.refused_at)
        if holder.lease.release_reason == "limited":
            self._waits_for = "limited"
        return renewed

    def _check_last_failure(self, lease: Lease, pair: TokenPair | None) -> Step:
        """Raise the error of the last renewal, or wait and return True to start again; False: it does not apply."""
        if lease.release_reason in (None, "free", "done") or lease.pair_nonce != _nonce_of(pair):
            return False
        now = (yield BankTime()).at
        if not lease.at - self._timings.call <= now < lease.blocked_until:
            return False
        left = lease.blocked_until - now
        if lease.release_reason == "key":
            raise key_refused(lease.detail)
        if lease.release_reason == "shadowed":
            raise shadowed()
        if lease.release_reason == "budget":
            if (yield from self._allows_more(now)):
                return False
            raise budget_exhausted(lease.blocked_until, self._me.max_logins)
        if lease.release_reason == "limited":
            if (yield Now()) - self._started + left >= self._timings.wait:
                raise bank_limited(left)
            self._waits_for = "limited"
            yield Sleep(left, jitter=self._timings.poll, why="limited")
            return True
        raise bank_was_unavailable(lease.detail, left)

    def _allows_more(self, now: float) -> Step:
        """Return whether this process's login budget allows a login: its connection may have been changed since."""
        history: LoginHistory | None = yield Read("logins")
        counted = [entry for entry in history.logins if entry.until > now] if history is not None else []
        return history is not None and next_allowed(counted, self._me.max_logins) is None

    def _is_free(self, lease: Lease) -> Step:
        """Return whether the lease is free: its holder has released it, or has not changed it for the takeover time."""
        if lease.release_reason is not None or lease.nonce in self._own_nonces:
            return True
        now = yield Now()
        if lease.nonce != self._watched:
            self._watched, self._watched_since = lease.nonce, now
        return now - self._watched_since >= self._timings.takeover

    def _is_over(self, lease: Lease, now: Moment, pair: TokenPair | None) -> bool:
        """Return whether, by the bank's clock, no process can still be working, although the session was deleted.

        This covers this lease, and any lease that a late write of this one may have overwritten.
        """
        if pair is not None and (lease.release_reason != "done" or lease.nonce != pair.nonce):
            return False
        age = self._timings.takeover + self._timings.store + CALL_SLACK
        return lease.exact and now.exact and now.at - lease.at > age

    def _write_lease(
        self, displaced: Lease | None, gen: int, pair: TokenPair | None, locked: bool, moment: Moment
    ) -> Step:
        """Write a lease, which also tests that the store can be written; None: start again."""
        pair_nonce = _nonce_of(pair)
        refused = [at for nonce, at in (self._refused,) if nonce == pair_nonce]
        if displaced is not None and displaced.gen == gen and displaced.pair_nonce == pair_nonce:
            refused.append(displaced.refused_at)
        mine = Lease(
            gen,
            nonce=(yield NewNonce()),
            holder=self._me.name,
            floor=max(displaced.floor, displaced.gen) if displaced is not None else 0,
            pair_nonce=pair_nonce,
            at=moment.at,
            exact=moment.exact,
            refused_at=max(refused, default=0.0),
        )
        # The holder of the replaced lease may have refreshed and died, or may be about to store the new pair. A release
        # does not prove that it has ended: a late write of it may have overwritten the lease of another task.
        if displaced is None:
            self._unsettled |= pair is not None
        elif not self._is_over(displaced, moment, pair):
            self._unsettled |= pair is None or displaced.nonce != pair.nonce
            self._settle |= displaced.release_reason is not None
        self._own_nonces.add(mine.nonce)
        began = yield Now()
        try:
            yield Write("lease", mine)
        except StoreUnavailable:
            if (yield Read("lease")) == displaced:
                self._failed_writes += 1
                if self._failed_writes >= LEASE_WRITES:
                    raise
            return None
        took = (yield Now()) - began
        # If a slow write takes effect again, this process could read its own lease after another task has acquired it.
        if not locked and self._too_slow(took, self._timings.lease_write):
            return None
        return mine

    def _too_slow(self, took: float, limit: float) -> bool:
        """Return whether an operation took longer than mutual exclusion allows; raise after the second one in a row."""
        if took <= limit:
            return False
        if self._me.lock is not None:
            # The distributed lock excludes other tasks. For requests of tasks without the lock, the holder waits.
            self._unsettled = True
            return False
        self._slow_writes += 1
        if self._slow_writes >= SLOW_WRITES:
            raise store_too_slow(took, limit)
        return True


def _nonce_of(pair: TokenPair | None) -> str:
    return pair.nonce if pair is not None else ""
