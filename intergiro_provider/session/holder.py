# SPDX-License-Identifier: Apache-2.0
"""The steps of the holder of the lease: probe the access token, refresh or log in, store the new pair.

The bank accepts a refresh token once, so of two refreshes at most one succeeds. The bank accepts every login. So a
login is the last step, after another read of the store, a wait for late writes, and an entry in the login history.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from intergiro_provider.exceptions import IntergiroError, StoreUnavailable
from intergiro_provider.session.budget import HOUR, dated, known_logins, next_allowed, reserved
from intergiro_provider.session.critical_section import CriticalSection, Ended, Step
from intergiro_provider.session.documents import LoginHistory, TokenPair
from intergiro_provider.session.effects import (
    BankResponse,
    BankTime,
    CheckKey,
    ConfirmAbsent,
    KeyChanged,
    LogIn,
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
from intergiro_provider.session.errors import budget_exhausted, key_refused, login_reason, shadowed


@dataclass(slots=True, kw_only=True)
class Holder(CriticalSection):
    """One renewal by the holder of the lease. :meth:`run` returns None if the lease is lost or the bank returns 429.

    :param rejected: the pair for which the bank returned 401; None: the caller has none.
    :param pair: the stored pair, as read before the lease was acquired; None: no pair was found.
    :param backwards: the pair is older than the lease says. It was restored from a backup, or something hides the
        newer one.
    :param unsettled: an earlier holder of the lease may have refreshed without storing the new pair.
    :param settle: wait for a late write before a login, for that or another reason.
    :param unspent: nonces of this process that are in the login history, but whose login was certainly not made.
    """

    rejected: TokenPair | None
    pair: TokenPair | None
    backwards: bool
    unsettled: bool
    settle: bool
    unspent: set[str]
    _asked: bool = False

    def run(self) -> Step:
        """Renew; return :class:`Renewed`, or None to start again."""
        try:
            renewed = yield from self._run()
        except (IntergiroError, KeyChanged):
            if not self._asked and self.lease.release_reason is None:
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
                    "The stored Intergiro session disappeared during the renewal. Someone has deleted it, or Airflow's "
                    "Variables are not reliable at present. No request was sent to the bank, and the task can be "
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
        """Return the pairs to refresh: the rejected pair if it is newer than the stored one, then the stored one."""
        stored, rejected = self.pair, self.rejected
        if stored is None:
            return []
        newer = rejected is not None and rejected.gen > stored.gen
        memo = self.lease.refused_at
        refused_before = memo and (yield BankTime()).at - memo < self.timings.refused_pause
        due = (rejected if newer else None, None if refused_before else stored)
        return [pair for pair in due if pair is not None and pair.refresh_token]

    def _use(self, current: TokenPair) -> Renewed | None:
        """Return a pair that another process has stored, if it can be used; None: start again."""
        return Renewed(current, "found") if current.supersedes(self.rejected) else None

    def _rewrite(self) -> Step:
        """Write a restored pair with a mark and read it back, to see whether something hides it; False: start again."""
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
        """Refresh the pairs in turn; return :class:`Ended` if that ends the renewal, None if all were refused."""
        for old in due:
            if not (yield from self._in_time()):
                return Ended(None)
            probe: BankResponse = yield Probe(old.access_token)
            if probe.outcome is Outcome.OK:
                yield from self.release("free")
                return Ended(Renewed(old, "alive", stored=old is self.pair))
            if probe.outcome is not Outcome.REFUSED:
                return (yield from self._unavailable(probe, "the request that tests the access token"))
        # During the probes, a process that was paused may have stored the pair of its own refresh.
        if due and (ended := (yield from self._superseded())) is not None:
            return ended
        for old in due:
            response = yield from self._refresh(old)
            if isinstance(response, Ended):
                return response
            if response.outcome is Outcome.OK:
                return Ended((yield from self._store(response, old, "refreshed")))
            if old is self.pair:
                self.lease = replace(self.lease, refused_at=(yield BankTime()).at)
        return None

    def _refresh(self, old: TokenPair) -> Step:
        """Refresh one pair; return the response if its outcome is OK or REFUSED, else :class:`Ended`."""
        unknown = False
        while True:
            if not (yield from self._in_time()):
                if unknown:
                    return (yield from self._unavailable(BankResponse(Outcome.UNKNOWN), "the refresh"))
                return Ended(None)
            response: BankResponse = yield Refresh(old.refresh_token)
            self._asked = response.outcome is not Outcome.REFUSED
            if response.outcome in (Outcome.OK, Outcome.REFUSED):
                return response
            if response.outcome is Outcome.UNAVAILABLE or (response.outcome is Outcome.UNKNOWN and unknown):
                return (yield from self._unavailable(response, "the refresh"))
            if response.outcome is Outcome.UNKNOWN:
                unknown = self.unsettled = self.settle = True
            elif not (yield from self._in_time(self.timings.repeat)):
                return (yield from self._unavailable(response, "the refresh"))
            yield Sleep(self.timings.repeat)

    def _settle(self) -> Step:
        """Wait for late writes of other processes; return :class:`Ended` if one has renewed or holds the lease."""
        began = yield Now()
        while True:
            ended = yield from self._superseded()
            if ended is not None:
                return ended
            if not self.settle or (yield Now()) - began >= self.timings.settle_session:
                return None
            yield Sleep(self.timings.poll, why="settle")

    def _superseded(self) -> Step:
        """Return :class:`Ended` if another pair is stored or the lease is lost; None otherwise."""
        current = yield Read("session")
        if current is None and self.pair is not None:
            raise StoreUnavailable(
                "The stored Intergiro session disappeared during the renewal. No login was attempted, and "
                "the task can be retried."
            )
        if current != self.pair:
            return Ended(None if current is None else self._use(current))
        if not (yield from self._is_mine()):
            return Ended(None)
        return None

    # Log in.

    def _log_in(self) -> Step:
        """Log in, within the login budget; None: start again."""
        ended = yield from self._settle()
        if ended is not None:
            return ended.renewed
        # A session also ends when its key is replaced. The old key must not be tried again.
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
        response: BankResponse = yield LogIn()
        self._asked = True
        if response.outcome is Outcome.OK:
            # Do not write the history now: the lease is void, and a late write could remove the next login's entry.
            renewed: Renewed = yield from self._store(response, None, "logged_in")
            if self.pair is None and renewed.stored:
                # Once this session is deleted, only this release shows that the lease is not held.
                yield from self.release("done")
            why, unexpected = login_reason(self.pair, self.unsettled, history, self.lease.nonce)
            return replace(renewed, why=why, unexpected=unexpected)
        yield from self._correct(history, response)
        if response.outcome is Outcome.REFUSED:
            yield from self.release("key", self.timings.takeover, response.detail)
            raise key_refused(response.detail)
        yield from self._unavailable(response, "the login")
        return None

    def _reserve(self) -> Step:
        """Enter a login in the history before it is made; None: too little time is left, or another process interfered.

        :raises LoginBudgetExhausted: the login budget of the hour is used up.
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

    def _correct(self, history: LoginHistory, response: BankResponse) -> Step:
        """Date the entry of a login that gave no session, or remove it."""
        unsent = response.outcome is Outcome.UNSENT
        if (response.at is None and not unsent) or not (yield from self._is_mine()):
            return
        others = (e for e in history.logins if e.nonce != self.lease.nonce)
        this = () if unsent or response.at is None else (dated(response.at, self.lease.nonce),)
        with suppress(StoreUnavailable):
            yield from self._write_in_time("logins", LoginHistory((*others, *this)))

    # Store.

    def _store(self, response: BankResponse, old: TokenPair | None, how: Any) -> Step:
        """Store the new pair, unless a newer one is stored. If that fails, the caller uses the pair from memory."""
        now: Moment = yield BankTime()
        known = [pair for pair in (self.pair, self.rejected) if pair is not None]
        fresh = TokenPair(
            access_token=response.access_token,
            refresh_token=response.refresh_token or (old.refresh_token if old is not None else ""),
            gen=max(self.lease.gen, self.lease.floor, *(pair.gen for pair in known)) + 1,
            nonce=self.lease.nonce,
            lock=self.me.lock,
            login_at=old.login_at if old is not None else response.at or now.at,
            login=old.login if old is not None else self.lease.nonce if response.at is not None else "",
            issued_at=response.at or now.at,
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
                    # The next holder would read the old pair and log in.
                    yield from self.release("shadowed", HOUR)
                    return Renewed(fresh, how, stored=False, shadowed=True)
            except StoreUnavailable:
                pass
            yield Sleep(self.timings.poll)
            if (yield Now()) - self.acked > self.timings.persist_until:
                return Renewed(fresh, how, stored=False)
