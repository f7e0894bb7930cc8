# SPDX-License-Identifier: Apache-2.0
"""The renewal of a shared session, as a protocol without input or output of its own.

Many processes hold the same session; Airflow's Variables know no compare-and-swap. Who may renew is settled by a lease
Variable with timing conditions that each process checks on itself (Fischer's mutual exclusion), guarded from the
outside by a thread lock, a file lock and, where configured, a strict lock. This module is about becoming the one who
may; :mod:`.holder` is about what that one does.

:meth:`Renewal.run` is a generator: it yields :mod:`effects <.effects>` and is sent their answers. The same code is
driven against Airflow and the bank in production and against a simulated world, with crashes, in the tests.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from intergiro_provider.exceptions import BankUnavailable, LockMismatch, StoreUnavailable
from intergiro_provider.session.budget import next_allowed
from intergiro_provider.session.documents import Lease, Ledger, Session
from intergiro_provider.session.effects import (
    Abandoned,
    BankTime,
    ConfirmAbsent,
    CurrentKey,
    Effect,
    Member,
    NewNonce,
    Now,
    Read,
    Renewed,
    Sleep,
    Write,
)
from intergiro_provider.session.holder import Holder, is_usable
from intergiro_provider.session.reasons import budget_exhausted, key_refused, shadowed
from intergiro_provider.session.timings import Timings

LEASE_WRITES = 3
SLOW_WRITES = 2
UNREAD_WRITES = 2

Step = Generator[Effect, Any, Any]


class Renewal:
    """One renewal by one process.

    :param me: who renews.
    :param rejected: the session that the bank answered 401 to; None: the caller has none.
    """

    def __init__(self, me: Member, rejected: Session | None, timings: Timings) -> None:
        self._abandoned = False
        self._me = me
        self._rejected = rejected
        self._timings = timings
        self._watched = ""
        self._watched_since = 0.0
        self._own_nonces: set[str] = set()
        self._failed_writes = 0
        self._slow_writes = 0
        self._unsettled = False
        self._unread_writes = 0
        self._refused = ("", 0.0)
        self._unspent: set[str] = set()

    def run(self, waited: float = 0.0) -> Generator[Effect, Any, Renewed]:
        """The protocol; returns what to go on with.

        :param waited: seconds already spent on waiting for locks; they count towards the deadline.
        :raises IntergiroError: whichever says best why there is no session; nothing is lost then.
        :raises Abandoned: after :meth:`abandon` was called and before the bank was asked.
        """
        started = (yield Now()) - waited
        while True:
            renewed: Renewed | None = yield from self._attempt()
            if renewed is not None:
                return renewed
            yield Sleep(self._timings.poll, jitter=self._timings.poll)
            if (yield Now()) - started > self._timings.wait:
                raise StoreUnavailable(
                    f"Another process has been renewing the Intergiro session for over {self._timings.wait:.0f} s, or "
                    "Airflow's Variables are too slow to agree on who may. The task can be tried again; if this "
                    "happens often, set `lock_conn_id` in the connection's extra."
                )

    def abandon(self) -> None:
        """End as soon as nothing is half done."""
        self._abandoned = True

    def _is_abandoned(self) -> bool:
        return self._abandoned

    def _attempt(self) -> Step:
        """From the first read to a session; None: the world has changed meanwhile, start again."""
        if self._is_abandoned():
            raise Abandoned
        session, foreign = yield from self._look()
        if not foreign and is_usable(session, self._rejected):
            return Renewed(session, "found")
        if session is not None and session.lock not in (None, self._me.lock):
            raise LockMismatch(
                "The Intergiro session was made under another `lock_conn_id` than this task's connection names. Give "
                "every task of this session the same `lock_conn_id`, or delete the session's Variable to start anew."
            )
        # A session that only seems to be missing has a lease that must be respected.
        if session is None and not (yield ConfirmAbsent("session")):
            return None
        began = yield Now()
        lease = yield Read("lease")
        if lease is None and not (yield ConfirmAbsent("lease")):
            return None
        gen = session.gen if session is not None else 0
        backwards = session is not None and lease is not None and lease.gen > gen
        if backwards:
            if (yield Read("session")) != session:
                return None
            gen = lease.gen
        # Under a strict lock no timing is needed, once a session says that everybody else is under it too.
        strict = self._me.lock is not None and session is not None and session.lock == self._me.lock
        about = session.mark if session is not None else ""
        if lease is not None and lease.gen == gen:
            yield from self._heed_verdict(lease, about)
            if not (strict or (yield from self._is_free(lease))):
                return None
        mine = yield from self._write_lease(lease, gen, session, strict)
        if mine is None:
            return None
        acked = yield Now()
        if not strict:
            if self._too_slow(acked - began, self._timings.lease_round):
                return None
            # Whoever read the lease before my write will have finished writing, or not enter.
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
            session=session,
            foreign=foreign,
            lease=mine,
            acked=acked,
            backwards=backwards,
            unsettled=self._unsettled,
            unspent=self._unspent,
        )
        if self._is_abandoned():
            yield from holder.leave("free", 0.0)
            raise Abandoned
        renewed = yield from holder.run()
        self._refused = (holder.lease.about, holder.lease.refused_at)
        return renewed

    def _look(self) -> Step:
        """The stored session, and whether it belongs to another origin or API key than mine."""
        session = yield Read("session")
        if session is None or session.key in ("", self._me.key):
            return session, False
        # The connection may have been changed since this process looked it up.
        self._me = replace(self._me, key=(yield CurrentKey()))
        return session, session.key != self._me.key

    def _heed_verdict(self, lease: Lease, about: str) -> Step:
        """Fail at once with what the last owner of this lease found out, while that holds."""
        if lease.verdict in (None, "free") or lease.verdict_key != self._me.key or lease.about != about:
            return
        now = (yield BankTime()).at
        if not lease.verdict_at - self._timings.call <= now < lease.verdict_until:
            return
        if lease.verdict == "key":
            raise key_refused()
        if lease.verdict == "shadowed":
            raise shadowed()
        if lease.verdict == "budget":
            if (yield from self._allows_more(now)):
                return
            raise budget_exhausted(lease.verdict_until, self._me.max_logins)
        raise BankUnavailable(
            "Another task has just found that Intergiro does not renew the session at present (its log says why), so "
            f"it was not asked again. Nothing is lost; the task can be tried again in {lease.verdict_until - now:.0f} "
            "s.",
            retry_after=lease.verdict_until - now,
        )

    def _allows_more(self, now: float) -> Step:
        """Whether my budget has room where another's was used up: the connection may have been changed since."""
        ledger: Ledger | None = yield Read("ledger")
        counted = [entry for entry in ledger.logins if entry.until > now] if ledger is not None else []
        return ledger is not None and next_allowed(counted, self._me.max_logins) is None

    def _is_free(self, lease: Lease) -> Step:
        """Whether nobody works under this lease: its owner said so, or has been silent for too long to be alive."""
        if lease.verdict is not None or lease.nonce in self._own_nonces:
            return True
        now = yield Now()
        if lease.nonce != self._watched:
            self._watched, self._watched_since = lease.nonce, now
        return now - self._watched_since >= self._timings.takeover

    def _write_lease(self, displaced: Lease | None, gen: int, session: Session | None, strict: bool) -> Step:
        """Write a lease of mine, which also probes that the store can be written; None: start again."""
        about = session.mark if session is not None else ""
        refused = [at for mark, at in (self._refused,) if mark == about]
        if displaced is not None and displaced.gen == gen and displaced.about == about:
            refused.append(displaced.refused_at)
        mine = Lease(
            gen,
            nonce=(yield NewNonce()),
            owner=self._me.name,
            floor=max(displaced.floor, displaced.gen) if displaced is not None else 0,
            about=about,
            refused_at=max(refused, default=0.0),
        )
        # The owner of the displaced lease may have rotated the token and died, or may be about to store the new one;
        # even where it left word that it has ended, for that word may have come late and over somebody else's lease.
        if displaced is not None:
            self._unsettled |= session is None or displaced.nonce != session.nonce
        else:
            self._unsettled |= session is not None and not session.seeded
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
        # A late second copy of a slow write could look like a win after somebody else has taken the lease.
        if not strict and self._too_slow(took, self._timings.lease_write):
            return None
        return mine

    def _too_slow(self, took: float, limit: float) -> bool:
        """Whether a write took longer than mutual exclusion allows; an error when that happens twice in a row."""
        if took <= limit:
            return False
        self._slow_writes += 1
        if self._slow_writes >= SLOW_WRITES:
            raise StoreUnavailable(
                "The Airflow API is too slow to renew the Intergiro session safely: writing a Variable took "
                f"{took:.1f} s, and {limit:.1f} s is the limit. Scale the API server, or set `lock_conn_id` in the "
                "connection's extra."
            )
        return True
