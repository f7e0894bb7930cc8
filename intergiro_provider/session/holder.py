# SPDX-License-Identifier: Apache-2.0
"""What the holder of the lease does: probe, refresh or log in, store.

The bank accepts a refresh token once, so two refreshers cannot both win. Only a login has no guard at the bank; hence
the reads, the settling and the login history before it. Every step has to end within times that a successor relies on.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isinf
from typing import Any

from intergiro_provider.exceptions import IntergiroError, StoreUnavailable
from intergiro_provider.session.budget import HOUR, dated, known_logins, next_allowed, reserved
from intergiro_provider.session.documents import Lease, LoginHistory, Slot, TokenPair, Verdict
from intergiro_provider.session.effects import (
    Answer,
    BankTime,
    CheckKey,
    ConfirmAbsent,
    Effect,
    KeyChanged,
    LogIn,
    Member,
    Moment,
    Now,
    Outcome,
    Probe,
    Read,
    Refresh,
    Renewed,
    Sleep,
    Write,
)
from intergiro_provider.session.reasons import bank_unavailable, budget_exhausted, key_refused, login_reason, shadowed
from intergiro_provider.session.timings import Timings

Step = Generator[Effect, Any, Any]

TOO_MANY_REQUESTS = 429


@dataclass(slots=True)
class Holder:
    """One critical section; :meth:`run` returns None when the lease turns out to be lost, or the bank busy.

    :param me: who renews.
    :param rejected: the pair that the bank answered 401 to; None: the caller has none.
    :param pair: the stored pair, as read before the lease was acquired; None: there seemed to be none.
    :param lease: the lease, which is mine.
    :param acked: monotonic seconds at which the lease write was acknowledged.
    :param backwards: the pair is older than the lease says: restored from a backup, or hidden by something.
    :param unsettled: an earlier holder of the lease may have rotated the token without storing the new one.
    :param settle: whether to look for a late store before a login, for that reason or another.
    :param unspent: nonces of this process under which a login was entered into the history, but certainly not made.
    """

    me: Member
    rejected: TokenPair | None
    timings: Timings
    pair: TokenPair | None
    lease: Lease
    acked: float
    backwards: bool
    unsettled: bool
    settle: bool
    unspent: set[str]
    _asked: bool = False
    _copies_until: float = 0.0

    def run(self) -> Step:
        """Renew; end with :class:`Renewed`, or with None to start again."""
        try:
            renewed = yield from self._run()
        except (IntergiroError, KeyChanged):
            if not self._asked and self.lease.verdict is None:
                yield from self.release("free")
            yield from self._outlast_copies()
            raise
        yield from self._outlast_copies()
        return renewed

    def _run(self) -> Step:
        current: TokenPair | None = yield Read("session")
        if current != self.pair:
            if current is None:
                raise StoreUnavailable(
                    "The Intergiro session was there a moment ago and is gone now: Airflow's Variables are not "
                    "reliable at present, or somebody has just deleted it. The bank was not asked; the task can be "
                    "retried."
                )
            return self._use(current)
        if current is None and not (yield ConfirmAbsent("session")):
            return None
        if self.backwards and not (yield from self._rewrite()):
            return None
        ended = yield from self._exchange((yield from self._due()))
        if ended is not None:
            return ended.renewed
        return (yield from self._log_in())

    def _due(self) -> Step:
        """The pairs to refresh: the rejected one where it is newer than the stored one, and the stored one."""
        stored, rejected = self.pair, self.rejected
        if stored is None:
            return []
        newer = rejected is not None and rejected.gen > stored.gen
        memo = self.lease.refused_at
        refused_before = memo and (yield BankTime()).at - memo < self.timings.refused_memo
        due = (rejected if newer else None, None if refused_before else stored)
        return [pair for pair in due if pair is not None and pair.refresh_token]

    def _use(self, current: TokenPair) -> Renewed | None:
        """A pair that appeared meanwhile, if it can be used; else start again."""
        return Renewed(current, "found") if current.supersedes(self.rejected) else None

    def _rewrite(self) -> Step:
        """Put a mark of mine on a restored pair, and see if it can be read; False: start again."""
        pair: TokenPair = self.pair  # type: ignore[assignment] # there is one to rewrite
        marked = replace(pair, lock=self.me.lock, writer=f"{self.me.name} {self.lease.nonce}")
        if not (yield from self._write_in_time("session", marked)):
            return False
        back = yield Read("session")
        if back == pair:
            raise shadowed()
        if back is None:
            raise StoreUnavailable(
                "The Intergiro session that was just written cannot be read. No refresh was attempted, and the task "
                "can be retried."
            )
        self.pair = marked
        return back == marked

    # Refresh.

    def _exchange(self, due: list[TokenPair]) -> Step:
        """Refresh; `_Ended` when the renewal is over, None when all of them were refused."""
        for old in due:
            if not (yield from self._in_time()):
                return _Ended(None)
            probe: Answer = yield Probe(old.access_token)
            if probe.outcome is Outcome.OK:
                yield from self.release("free")
                return _Ended(Renewed(old, "alive", stored=old is self.pair))
            if probe.outcome is not Outcome.REFUSED:
                return (yield from self._unavailable(probe, "a request that tells whether the session lives"))
        # The probes took time, in which a process that was asleep may have stored what it had rotated.
        if due and (ended := (yield from self._superseded())) is not None:
            return ended
        for old in due:
            answer = yield from self._refresh(old)
            if isinstance(answer, _Ended):
                return answer
            if answer.outcome is Outcome.OK:
                return _Ended((yield from self._store(answer, old, "refreshed")))
            if old is self.pair:
                self.lease = replace(self.lease, refused_at=(yield BankTime()).at)
        return None

    def _refresh(self, old: TokenPair) -> Step:
        """The bank's definite answer, OK or REFUSED; `_Ended` without one."""
        unknown = False
        while True:
            if not (yield from self._in_time()):
                if unknown:
                    return (yield from self._unavailable(Answer(Outcome.UNKNOWN), "the refresh"))
                return _Ended(None)
            answer: Answer = yield Refresh(old.refresh_token)
            self._asked = answer.outcome is not Outcome.REFUSED
            if answer.outcome in (Outcome.OK, Outcome.REFUSED):
                return answer
            if answer.outcome is Outcome.UNAVAILABLE or (answer.outcome is Outcome.UNKNOWN and unknown):
                return (yield from self._unavailable(answer, "the refresh"))
            if answer.outcome is Outcome.UNKNOWN:
                unknown = self.unsettled = self.settle = True
            elif not (yield from self._in_time(self.timings.repeat)):
                return (yield from self._unavailable(answer, "the refresh"))
            yield Sleep(self.timings.repeat)

    def _settle(self) -> Step:
        """`_Ended` if another process has stored a pair, or holds the lease now."""
        began = yield Now()
        while True:
            ended = yield from self._superseded()
            if ended is not None:
                return ended
            if not self.settle or (yield Now()) - began >= self.timings.settle_session:
                return None
            yield Sleep(self.timings.poll, why="settle")

    def _superseded(self) -> Step:
        """`_Ended` when a new pair is there or the lease is lost."""
        current = yield Read("session")
        if current is None and self.pair is not None:
            raise StoreUnavailable(
                "The Intergiro session disappeared while it was being renewed. That is no reason for a login; the task "
                "can be retried."
            )
        if current != self.pair:
            return _Ended(None if current is None else self._use(current))
        if not (yield from self._is_mine()):
            return _Ended(None)
        return None

    # Log in.

    def _log_in(self) -> Step:
        ended = yield from self._settle()
        if ended is not None:
            return ended.renewed
        # The end of a session may be that its key was replaced. That one must not be tried again.
        if not (yield CheckKey()):
            raise KeyChanged
        reserved_at = yield Now()
        history = yield from self._reserve()
        if history is None:
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
            # No write to the history: the lease is void then, and a late copy could remove the next login.
            renewed: Renewed = yield from self._store(answer, None, "logged_in")
            if self.pair is None and renewed.stored:
                # Else nobody could tell, once this session is deleted, that the lease is not held.
                yield from self.release("done")
            why, unexpected = login_reason(self.pair, self.unsettled, history, self.lease.nonce)
            return replace(renewed, why=why, unexpected=unexpected)
        yield from self._correct(history, answer)
        if answer.outcome is Outcome.REFUSED:
            yield from self.release("key", self.timings.takeover, answer.detail)
            raise key_refused(answer.detail)
        yield from self._unavailable(answer, "the login")
        return None

    def _reserve(self) -> Step:
        """Enter a login into the history before it is made; None: no time left for one, or another process interfered.

        :raises LoginBudgetExhausted: if the hour holds enough of them.
        """
        history: LoginHistory | None = yield Read("logins")
        if history is None:
            if not (yield ConfirmAbsent("logins")):
                return None
            history = LoginHistory()
        known = known_logins(history, self.pair)
        now: Moment = yield BankTime(exact=bool(known))
        counted = tuple(e for e in known if e.until > now.at and e.nonce not in self.unspent)
        if (next_at := next_allowed(counted, self.me.max_logins)) is not None:
            yield from self.release("budget", next_at - now.at)
            raise budget_exhausted(next_at, self.me.max_logins)
        if not (yield from self._in_time(self.timings.reserve)):
            return None
        entered = LoginHistory((*counted, reserved(now, self.lease.nonce)))
        self.unspent.add(self.lease.nonce)
        if not (yield from self._write_in_time("logins", entered)):
            return None
        back = yield Read("logins")
        if back == history and (yield from self._is_mine()):
            raise shadowed()
        if back is None:
            raise StoreUnavailable(
                "The login history that was just written cannot be read. No login was attempted, and the task can be "
                "retried."
            )
        if back != entered:
            return None
        self.unspent.discard(self.lease.nonce)
        return entered

    def _correct(self, history: LoginHistory, answer: Answer) -> Step:
        """After a login that gave no session: date its entry, or remove it. Ends when no late copy can come."""
        unsent = answer.outcome is Outcome.UNSENT
        if (answer.at is None and not unsent) or not (yield from self._is_mine()):
            return
        others = (e for e in history.logins if e.nonce != self.lease.nonce)
        this = () if unsent or answer.at is None else (dated(answer.at, self.lease.nonce),)
        with suppress(StoreUnavailable):
            yield from self._write_in_time("logins", LoginHistory((*others, *this)))

    # Store.

    def _store(self, answer: Answer, old: TokenPair | None, how: Any) -> Step:
        """Store the new pair, unless a newer one is there; keep it in memory where that fails."""
        now: Moment = yield BankTime()
        known = [pair for pair in (self.pair, self.rejected) if pair is not None]
        fresh = TokenPair(
            access_token=answer.access_token,
            refresh_token=answer.refresh_token or (old.refresh_token if old is not None else ""),
            gen=max(self.lease.gen, self.lease.floor, *(pair.gen for pair in known)) + 1,
            nonce=self.lease.nonce,
            lock=self.me.lock,
            login_at=old.login_at if old is not None else answer.at or now.at,
            login=old.login if old is not None else self.lease.nonce if answer.at is not None else "",
            issued_at=answer.at or now.at,
            writer=self.me.name,
            connections=tuple(
                sorted({self.me.connection, *(name for pair in known for name in pair.connections)} - {""})
            ),
            key=self.me.key,
        )
        unread = 0
        while True:
            try:
                current = yield Read("session")
                if current is not None and current.gen > self.lease.gen:
                    is_mine = current.identity == fresh.identity
                    return Renewed(fresh, how) if is_mine else Renewed(current, "found")
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
                    # The next holder would be shown the old pair, and nothing else, and would log in.
                    yield from self.release("shadowed", HOUR)
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

    def _write_in_time(self, slot: Slot, document: TokenPair | LoginHistory) -> Step:
        """Write; False, or the failure, only once no late copy can overwrite what is stored after it."""
        began = yield Now()
        try:
            yield Write(slot, document)
        except StoreUnavailable:
            if not isinf(self.timings.lease_write):
                yield Sleep(self.timings.store)
            raise
        if (yield Now()) - began <= self.timings.lease_write:
            return True
        if self.me.lock is not None and slot == "logins":
            # Nobody else writes it while this process holds the distributed lock, so the login need not wait.
            self._copies_until = began + self.timings.store
            return True
        yield Sleep(self.timings.store)
        return self.me.lock is not None

    def _outlast_copies(self) -> Step:
        """Before the distributed lock is released: wait until no late copy of a slow write can come."""
        if self._copies_until and (left := self._copies_until - (yield Now())) > 0:
            yield Sleep(left)

    def release(self, verdict: Verdict, holds: float = 0.0, detail: str = "") -> Step:
        """Release the lease and write why. If that fails, other processes find out by waiting.

        :param holds: seconds for which others go by the verdict.
        """
        try:
            if not (yield from self._is_mine()):
                return
            now: Moment = yield BankTime()
            self.lease = replace(
                self.lease, verdict=verdict, at=now.at, exact=now.exact, verdict_until=now.at + holds, detail=detail
            )
            yield Write("lease", self.lease)
        except StoreUnavailable:
            return

    def _unavailable(self, answer: Answer, what: str) -> Step:
        """Release the lease; `_Ended` where the bank is only busy, for the next attempt waits; else an error."""
        busy = answer.status == TOO_MANY_REQUESTS and what != "the login"
        default = self.timings.repeat if busy else self.timings.bank_verdict
        # Whatever the bank asks for: a mistaken answer must not stop every task for ever.
        holds = min(answer.retry_after if answer.retry_after is not None else default, self.timings.refused_memo)
        yield from self.release("limited" if busy else "bank", holds, answer.detail)
        if busy:
            return _Ended(None)
        raise bank_unavailable(answer, what, holds)


@dataclass(frozen=True, slots=True)
class _Ended:
    """The end of a critical section: with a pair, or with None to start again."""

    renewed: Renewed | None
