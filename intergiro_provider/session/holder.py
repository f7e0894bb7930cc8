# SPDX-License-Identifier: Apache-2.0
"""What the holder of the lease does: make sure, refresh or log in, store.

The bank accepts a refresh token once, so two refreshers cannot both win. Only a login has no guard at the bank; hence
the reads, the settling and the ledger before it. Every step has to end within times that a successor counts on.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isinf
from typing import Any

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.budget import HOUR, dated, known_logins, next_allowed, reserved
from intergiro_provider.session.documents import Lease, Ledger, Session, Verdict
from intergiro_provider.session.effects import (
    Answer,
    BankTime,
    ConfirmAbsent,
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
from intergiro_provider.session.reasons import bank_unavailable, budget_exhausted, key_refused, login_reason, shadowed
from intergiro_provider.session.timings import Timings

Step = Generator[Effect, Any, Any]


def is_usable(session: Session | None, rejected: Session | None) -> bool:
    """Whether this stored session is another one than the one refused, and not older."""
    if session is None:
        return False
    return rejected is None or (session.identity != rejected.identity and session.gen >= rejected.gen)


@dataclass(slots=True)
class Holder:
    """One stay in the critical section; :meth:`run` returns None when it turns out not to be mine any more.

    :param me: who renews.
    :param rejected: the session that the bank answered 401 to; None: the caller has none.
    :param session: the stored session, as read before the lease was taken; None: there seemed to be none.
    :param foreign: it belongs to another origin or API key.
    :param lease: the lease, which is mine.
    :param acked: monotonic seconds at which the lease write was acknowledged.
    :param backwards: the session is older than the lease says: restored, seeded, or hidden by something.
    :param unsettled: a former owner of the lease may have rotated the token without storing the new one.
    :param unspent: nonces of this process under which a login was entered into the ledger, but certainly not made.
    """

    me: Member
    rejected: Session | None
    timings: Timings
    session: Session | None
    foreign: bool
    lease: Lease
    acked: float
    backwards: bool
    unsettled: bool
    unspent: set[str]
    _asked: bool = False

    def run(self) -> Step:
        """The stay; ends with :class:`Renewed`, or with None to start again."""
        try:
            return (yield from self._run())
        except StoreUnavailable:
            if not self._asked:
                yield from self.leave("free", 0.0)
            raise

    def _run(self) -> Step:
        current = yield Read("session")
        if current != self.session:
            if current is None:
                raise StoreUnavailable(
                    "The Intergiro session was there a moment ago and is gone now: the Airflow Variables are not "
                    "reliable at present, or somebody has just deleted it. Nothing was asked of the bank."
                )
            return self._take_up(current)
        if current is None and not (yield ConfirmAbsent("session")):
            return None
        seeded = self.session is not None and self.session.seeded
        if (seeded or self.backwards) and not self.foreign and not (yield from self._rewrite()):
            return None
        ended = yield from self._exchange((yield from self._due()))
        if ended is not None:
            return ended.renewed
        return (yield from self._log_in())

    def _due(self) -> Step:
        """The sessions to refresh: the refused one where it is newer than the stored one, and the stored one."""
        stored, rejected = self.session, self.rejected
        if stored is None or self.foreign:
            return []
        newer = rejected is not None and rejected.gen > stored.gen and rejected.key == self.me.key
        memo = self.lease.refused_at
        refused_before = memo and (yield BankTime()).at - memo < self.timings.refused_memo
        due = (rejected if newer else None, None if refused_before else stored)
        return [s for s in due if s is not None and s.refresh_token]

    def _take_up(self, current: Session) -> Renewed | None:
        """A session that appeared meanwhile, if it can be used; else start again."""
        if current.key == self.me.key and is_usable(current, self.rejected):
            return Renewed(current, "found")
        return None

    def _rewrite(self) -> Step:
        """Give a seeded or restored session a mark of mine, and see if it can be read; False: start again."""
        session: Session = self.session  # type: ignore[assignment] # there is one to rewrite
        marked = replace(session, key=self.me.key, lock=self.me.lock, writer=f"{self.me.name} {self.lease.nonce}")
        if session.seeded:
            marked = replace(marked, nonce=(yield NewNonce()))
        if not (yield from self._write_in_time("session", marked)):
            return False
        back = yield Read("session")
        if back == session:
            raise shadowed()
        if back is None:
            raise StoreUnavailable("The Intergiro session that was just written cannot be read. Nothing was burnt.")
        self.session = marked
        self.lease = replace(self.lease, about=marked.mark)
        return back == marked

    # Refresh.

    def _exchange(self, due: list[Session]) -> Step:
        """Refresh; `_Ended` when the renewal is over, None when all of them were refused."""
        for old in due:
            if not (yield from self._in_time()):
                return _Ended(None)
            probe: Answer = yield Probe(old.access_token)
            if probe.outcome is Outcome.OK:
                yield from self.leave("free", 0.0)
                return _Ended(Renewed(old, "alive", stored=old is self.session))
            if probe.outcome is not Outcome.REFUSED:
                yield from self._bank_unavailable(probe, "a request that tells whether the session lives")
        # The probes took time, in which a process that was asleep may have stored what it had rotated.
        if due and (ended := (yield from self._superseded())) is not None:
            return ended
        for old in due:
            answer = yield from self._refresh(old)
            if answer is None:
                return _Ended(None)
            if answer.outcome is Outcome.OK:
                return _Ended((yield from self._store(answer, old, "refreshed")))
            if old is self.session:
                self.lease = replace(self.lease, refused_at=(yield BankTime()).at)
        return None

    def _refresh(self, old: Session) -> Step:
        """The bank's definite answer: OK or REFUSED; None: out of time, nothing sent."""
        unknown = False
        while True:
            if not (yield from self._in_time()):
                if unknown:
                    yield from self._bank_unavailable(Answer(Outcome.UNKNOWN), "the refresh")
                return None
            answer: Answer = yield Refresh(old.refresh_token)
            self._asked = answer.outcome is not Outcome.REFUSED
            if answer.outcome in (Outcome.OK, Outcome.REFUSED):
                return answer
            if answer.outcome is Outcome.UNAVAILABLE or (answer.outcome is Outcome.UNKNOWN and unknown):
                yield from self._bank_unavailable(answer, "the refresh")
            if answer.outcome is Outcome.UNKNOWN:
                unknown = self.unsettled = True
            elif not (yield from self._in_time(self.timings.repeat)):
                yield from self._bank_unavailable(answer, "the refresh")
            yield Sleep(self.timings.repeat)

    def _settle(self) -> Step:
        """Has somebody else rotated the token, or does somebody else hold the lease now?"""
        began = yield Now()
        while True:
            ended = yield from self._superseded()
            if ended is not None:
                return ended
            if not self.unsettled or (yield Now()) - began >= self.timings.settle_session:
                return None
            yield Sleep(self.timings.poll)

    def _superseded(self) -> Step:
        """`_Ended` when a new session is there or the lease is lost."""
        current = yield Read("session")
        if current is None and self.session is not None:
            raise StoreUnavailable(
                "The Intergiro session disappeared while it was being renewed; no login is made on that evidence."
            )
        if current != self.session:
            return _Ended(None if current is None else self._take_up(current))
        if not (yield from self._is_mine()):
            return _Ended(None)
        return None

    # Log in.

    def _log_in(self) -> Step:
        ended = yield from self._settle()
        if ended is not None:
            return ended.renewed
        reserved_at = yield Now()
        ledger = yield from self._reserve()
        if ledger is None:
            return None
        if (
            not (yield from self._is_mine())
            or not (yield from self._in_time())
            or (yield Now()) - reserved_at > self.timings.reserve
        ):
            self.unspent.add(self.lease.nonce)
            return None
        answer: Answer = yield LogIn()
        self._asked = True
        if answer.outcome is Outcome.OK:
            # No write to the ledger: the lease is void then, and a late copy could strike the next login off.
            renewed = yield from self._store(answer, None, "logged_in")
            why, unexpected = login_reason(self.session, self.foreign, self.unsettled, ledger, self.lease.nonce)
            return replace(renewed, why=why, unexpected=unexpected)
        yield from self._correct(ledger, answer)
        if answer.outcome is Outcome.UNSENT:
            yield from self._bank_unavailable(answer, "the login")
        if answer.outcome is Outcome.REFUSED:
            yield from self.leave("key", self.timings.takeover)
            raise key_refused()
        yield from self._bank_unavailable(answer, "the login")

    def _reserve(self) -> Step:
        """Enter a login into the ledger before it is made; None: no time left for one, or somebody interfered.

        :raises LoginBudgetExhausted: if the hour holds enough of them.
        """
        ledger: Ledger | None = yield Read("ledger")
        if ledger is None:
            if not (yield ConfirmAbsent("ledger")):
                return None
            ledger = Ledger()
        known = known_logins(ledger, self.session)
        now: Moment = yield BankTime(exact=bool(known))
        counted = tuple(e for e in known if e.until > now.at and e.nonce not in self.unspent)
        if (next_at := next_allowed(counted, self.me.max_logins)) is not None:
            yield from self.leave("budget", next_at - now.at)
            raise budget_exhausted(next_at, self.me.max_logins)
        if not (yield from self._in_time(self.timings.reserve)):
            return None
        entered = Ledger((*counted, reserved(now, self.lease.nonce)))
        self.unspent.add(self.lease.nonce)
        if not (yield from self._write_in_time("ledger", entered)):
            return None
        back = yield Read("ledger")
        if back == ledger and (yield from self._is_mine()):
            raise shadowed()
        if back is None:
            raise StoreUnavailable("The ledger of logins that was just written cannot be read. Nothing was burnt.")
        if back != entered:
            return None
        self.unspent.discard(self.lease.nonce)
        return entered

    def _correct(self, ledger: Ledger, answer: Answer) -> Step:
        """After a login that gave no session: date its entry, or take it back. Ends when no late copy can come."""
        unsent = answer.outcome is Outcome.UNSENT
        if (answer.at is None and not unsent) or not (yield from self._is_mine()):
            return
        others = (e for e in ledger.logins if e.nonce != self.lease.nonce)
        this = () if unsent or answer.at is None else (dated(answer.at, self.lease.nonce),)
        with suppress(StoreUnavailable):
            yield from self._write_in_time("ledger", Ledger((*others, *this)))

    # Store.

    def _store(self, answer: Answer, old: Session | None, how: Any) -> Step:
        """Store the new pair, unless a newer one is there; keep it in memory where that fails."""
        now: Moment = yield BankTime()
        known = [s.gen for s in (self.session, self.rejected) if s is not None]
        fresh = Session(
            access_token=answer.access_token,
            refresh_token=answer.refresh_token or (old.refresh_token if old is not None else ""),
            key=self.me.key,
            gen=max(self.lease.gen, self.lease.floor, *known) + 1,
            nonce=self.lease.nonce,
            lock=self.me.lock,
            login_at=old.login_at if old is not None else answer.at or now.at,
            login=old.login if old is not None else self.lease.nonce if answer.at is not None else "",
            issued_at=answer.at or now.at,
            writer=self.me.name,
        )
        unread = 0
        while True:
            try:
                current = yield Read("session")
                if current is not None and current.gen > self.lease.gen:
                    if current.identity == fresh.identity:
                        return Renewed(fresh, how)
                    if current.key == self.me.key:
                        return Renewed(current, "found")
                    return Renewed(fresh, how, stored=False)
                if (yield Now()) - self.acked > self.timings.persist_until:
                    return Renewed(fresh, how, stored=False)
                yield Write("session", fresh)
                back = yield Read("session")
                if back == fresh:
                    return Renewed(fresh, how)
                if back is not None and back.gen >= fresh.gen:
                    continue
                unread += 1
                if unread > 1 and back is not None:
                    # The next one would be shown the old session, and nothing else, and would log in.
                    yield from self.leave("shadowed", HOUR)
                    return Renewed(fresh, how, stored=False, shadowed=True)
            except StoreUnavailable:
                pass
            yield Sleep(self.timings.poll)
            if (yield Now()) - self.acked > self.timings.persist_until:
                return Renewed(fresh, how, stored=False)

    # Small steps.

    def _in_time(self, margin: float = 0.0) -> Step:
        """Whether a bank call may still start."""
        return (yield Now()) - self.acked + margin < self.timings.critical

    def _is_mine(self) -> Step:
        lease = yield Read("lease")
        return lease is not None and lease.nonce == self.lease.nonce

    def _write_in_time(self, slot: Slot, document: Session | Ledger) -> Step:
        """Write; False, or the failure, only once no late copy can come and overwrite what is stored after it."""
        began = yield Now()
        try:
            yield Write(slot, document)
        except StoreUnavailable:
            if not isinf(self.timings.lease_write):
                yield Sleep(self.timings.store)
            raise
        if (yield Now()) - began <= self.timings.lease_write:
            return True
        yield Sleep(self.timings.store)
        return False

    def leave(self, verdict: Verdict, holds: float) -> Step:
        """Free the lease and leave word why. If that fails, others find out by waiting."""
        try:
            if not (yield from self._is_mine()):
                return
            now = (yield BankTime()).at
            self.lease = replace(
                self.lease, verdict=verdict, verdict_at=now, verdict_until=now + holds, verdict_key=self.me.key
            )
            yield Write("lease", self.lease)
        except StoreUnavailable:
            return

    def _bank_unavailable(self, answer: Answer, what: str) -> Step:
        # Whatever the bank asks for: a mistaken answer must not stop every task for ever.
        asked = answer.retry_after if answer.retry_after is not None else self.timings.bank_verdict
        holds = min(asked, self.timings.refused_memo)
        yield from self.leave("bank", holds)
        raise bank_unavailable(answer, what, holds)


@dataclass(frozen=True, slots=True)
class _Ended:
    """The end of a stay: with a session, or with None to start again."""

    renewed: Renewed | None
