# SPDX-License-Identifier: Apache-2.0
"""What the holder of the lease does: make sure, refresh or log in, store.

The bank accepts a refresh token once, so two refreshers cannot both win. Only a login has no guard at the bank; hence
the reads, the settling and the ledger before it. Every step has to end within times that a successor counts on.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroAuthError,
    LoginBudgetExhausted,
    ShadowedError,
    StoreUnavailable,
)
from intergiro_provider.session.documents import Lease, Ledger, Login, Session, Verdict
from intergiro_provider.session.effects import (
    Answer,
    BankTime,
    ConfirmAbsent,
    Effect,
    LogIn,
    Member,
    NewNonce,
    Now,
    Outcome,
    Probe,
    Read,
    Refresh,
    Renewed,
    Sleep,
    Write,
)
from intergiro_provider.session.timings import Timings

HOUR = 3600.0
BUDGET_WINDOW = HOUR
CLOCK_SLACK = 60.0

Step = Generator[Effect, Any, Any]


def is_usable(session: Session | None, rejected: Session | None) -> bool:
    """Whether this stored session is another one than the one refused, and not older."""
    if session is None:
        return False
    return rejected is None or (session.identity != rejected.identity and session.gen >= rejected.gen)


def key_refused() -> IntergiroAuthError:
    return IntergiroAuthError(
        "Intergiro does not accept the API key: it is wrong, frozen or blocked, or belongs to the other `api` or "
        "`environment`. Check the connection's password and extra; a frozen 2d key is renewed in the customer portal."
    )


def budget_exhausted(next_at: float, max_logins: int) -> LoginBudgetExhausted:
    at = datetime.fromtimestamp(next_at, UTC)
    return LoginBudgetExhausted(
        at,
        f"The Intergiro session has ended and cannot be refreshed, and {max_logins} logins within an hour are used up "
        f"(`max_logins_per_hour`). The next one is allowed at {at:%Y-%m-%d %H:%M:%S} UTC. If sessions keep ending "
        "early, something else logs in with the same API key: another deployment, or a connection with another "
        "`session_variable`.",
    )


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

    def run(self) -> Step:
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
        if self.session is not None and not self.foreign and (self.session.seeded or self.backwards):
            yield from self._rewrite(self.session)
        old = self._newest_known()
        if old is not None:
            ended = yield from self._exchange(old)
            if ended is not None:
                return ended.renewed
        return (yield from self._log_in())

    def _newest_known(self) -> Session | None:
        """The session to refresh: the stored one, or the refused one where that is newer; None: log in."""
        if self.session is None or self.foreign:
            return None
        newest = self.session
        if self.rejected is not None and self.rejected.gen > newest.gen and self.rejected.key == self.me.key:
            newest = self.rejected
        return newest if newest.refresh_token else None

    def _take_up(self, current: Session) -> Renewed | None:
        """A session that appeared meanwhile, if it can be used; else start again."""
        if current.key == self.me.key and is_usable(current, self.rejected):
            return Renewed(current, "found")
        return None

    def _rewrite(self, session: Session) -> Step:
        """Give a seeded or restored session a mark of mine, and see whether the mark can be read."""
        marked = replace(session, key=self.me.key, lock=self.me.lock, writer=f"{self.me.name} {self.lease.nonce}")
        if session.seeded:
            marked = replace(marked, nonce=(yield NewNonce()))
        yield Write("session", marked)
        if (yield Read("session")) != marked:
            raise _shadowed()
        self.session = marked

    # Refresh.

    def _exchange(self, old: Session) -> Step:
        """Refresh, if that is due; `_Ended` when the renewal is over, None when the way to a login is free."""
        memo = self.lease.refused_at
        refused_before = memo and (yield BankTime()) - memo < self.timings.refused_memo
        if not refused_before:
            if not (yield from self._in_time()):
                return _Ended(None)
            probe: Answer = yield Probe(old.access_token)
            if probe.outcome is Outcome.OK:
                yield from self._leave("alive", 0.0)
                return _Ended(Renewed(old, "alive"))
            if probe.outcome is not Outcome.REFUSED:
                yield from self._bank_unavailable(probe, "a request that tells whether the session lives")
            answer = yield from self._refresh(old)
            if answer is None:
                return _Ended(None)
            if answer.outcome is Outcome.OK:
                return _Ended((yield from self._store(answer, old, "refreshed")))
            self.lease = replace(self.lease, refused_at=(yield BankTime()))
        return (yield from self._settle())

    def _refresh(self, old: Session) -> Step:
        """The bank's definite answer: OK or REFUSED; None: out of time, nothing sent."""
        unknown = False
        while True:
            if not (yield from self._in_time()):
                if unknown:
                    yield from self._bank_unavailable(Answer(Outcome.UNKNOWN), "the refresh")
                return None
            answer: Answer = yield Refresh(old.refresh_token)
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
        """After a refusal: has somebody else rotated the token, or does somebody else hold the lease now?"""
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
        if self.session is None and self.unsettled:
            ended = yield from self._settle()
        else:
            ended = yield from self._superseded()
        if ended is not None:
            return ended.renewed
        ledger = yield from self._reserve()
        if ledger is None or not (yield from self._is_mine()) or not (yield from self._in_time()):
            return None
        answer: Answer = yield LogIn()
        if answer.outcome is Outcome.UNSENT:
            if (yield from self._is_mine()):
                yield from self._write_quietly(Ledger(tuple(e for e in ledger.logins if e.nonce != self.lease.nonce)))
            yield from self._bank_unavailable(answer, "the login")
        elif answer.at is not None:
            yield from self._restamp(ledger, answer.at)
        if answer.outcome is Outcome.OK:
            return (yield from self._store(answer, None, "logged_in"))
        if answer.outcome is Outcome.REFUSED:
            yield from self._leave("key", self.timings.takeover)
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
        now = yield BankTime(exact=bool(ledger.logins))
        counted = tuple(sorted((e for e in ledger.logins if e.at > now - BUDGET_WINDOW), key=lambda e: e.at))
        if len(counted) >= self.me.max_logins:
            next_at = counted[-self.me.max_logins].at + BUDGET_WINDOW
            yield from self._leave("budget", next_at - now)
            raise budget_exhausted(next_at, self.me.max_logins)
        if not (yield from self._in_time(self.timings.reserve)):
            return None
        reserved = Ledger((*counted, Login(now, self.lease.nonce)))
        try:
            yield Write("ledger", reserved)
        except StoreUnavailable:
            if (yield Read("ledger")) != reserved:
                raise
            return reserved
        if (yield Read("ledger")) != reserved:
            if (yield from self._is_mine()):
                raise _shadowed()
            return None
        return reserved

    def _restamp(self, ledger: Ledger, at: float) -> Step:
        """Correct the entry of this login where my clock was far from the bank's."""
        mine = [e for e in ledger.logins if e.nonce == self.lease.nonce]
        if any(abs(e.at - at) > CLOCK_SLACK for e in mine) and (yield from self._is_mine()):
            entries = (Login(at, e.nonce) if e.nonce == self.lease.nonce else e for e in ledger.logins)
            yield from self._write_quietly(Ledger(tuple(entries)))

    # Store.

    def _store(self, answer: Answer, old: Session | None, how: Any) -> Step:
        """Store the new pair, unless a newer one is there; keep it in memory where that fails."""
        now = yield BankTime()
        known = [s.gen for s in (self.session, self.rejected) if s is not None]
        fresh = Session(
            access_token=answer.access_token,
            refresh_token=answer.refresh_token or (old.refresh_token if old is not None else ""),
            key=self.me.key,
            gen=max(self.lease.gen, self.lease.floor, *known) + 1,
            nonce=self.lease.nonce,
            lock=self.me.lock,
            login_at=old.login_at if old is not None else now,
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
                if back is not None and back.gen >= fresh.gen:
                    return Renewed(fresh if back == fresh else back, how if back == fresh else "found")
                unread += 1
                if unread > 1 and back is not None:
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

    def _write_quietly(self, ledger: Ledger) -> Step:
        try:
            yield Write("ledger", ledger)
        except StoreUnavailable:
            return

    def _leave(self, verdict: Verdict, holds: float) -> Step:
        """Free the lease and leave word why. If that fails, others find out by waiting."""
        try:
            if not (yield from self._is_mine()):
                return
            now = yield BankTime()
            self.lease = replace(
                self.lease, verdict=verdict, verdict_at=now, verdict_until=now + holds, verdict_key=self.me.key
            )
            yield Write("lease", self.lease)
        except StoreUnavailable:
            return

    def _bank_unavailable(self, answer: Answer, what: str) -> Step:
        holds = answer.retry_after if answer.retry_after is not None else self.timings.bank_verdict
        yield from self._leave("bank", holds)
        said = {
            Outcome.UNSENT: "the bank cannot be reached",
            Outcome.UNKNOWN: "no usable answer came",
        }.get(answer.outcome, f"the bank answered {answer.status}" if answer.status else "no usable answer came")
        raise BankUnavailable(
            f"The Intergiro session could not be renewed: {said} to {what}. No login was made instead, since that "
            "could trip fraud prevention. The task can be tried again later.",
            retry_after=holds,
        )


@dataclass(frozen=True, slots=True)
class _Ended:
    """The end of a stay: with a session, or with None to start again."""

    renewed: Renewed | None


def _shadowed() -> ShadowedError:
    return ShadowedError(
        "What was written to the Intergiro session's Variables cannot be read back: an AIRFLOW_VAR_… environment "
        "variable or a secrets backend, on the worker or on the API server, hides them. Remove it, or set another "
        "`session_variable` in the connection's extra."
    )
