# SPDX-License-Identifier: Apache-2.0
"""The checks and waits of every holder of a lease: its deadlines, its writes and the release.

Other processes rely on these times: a successor takes over when they have passed.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from math import isinf
from typing import Any

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.documents import Lease, LoginHistory, ReleaseReason, Slot, TokenPair
from intergiro_provider.session.effects import (
    BankResponse,
    BankTime,
    Effect,
    Moment,
    Now,
    Read,
    Renewed,
    Renewer,
    Sleep,
    Write,
)
from intergiro_provider.session.errors import bank_unavailable
from intergiro_provider.session.timings import Timings

Step = Generator[Effect, Any, Any]

TOO_MANY_REQUESTS = 429


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a critical section.

    :param renewed: the result; None: start again.
    """

    renewed: Renewed | None


@dataclass(slots=True, kw_only=True)
class CriticalSection:
    """The time during which a process holds the lease.

    :param me: the process that renews.
    :param lease: the lease that it holds.
    :param acked: monotonic seconds at which the write of the lease was acknowledged.
    """

    me: Renewer
    timings: Timings
    lease: Lease
    acked: float
    _copies_until: float = 0.0

    def _in_time(self, margin: float = 0.0) -> Step:
        """Return whether a bank call may still start."""
        return (yield Now()) - self.acked + margin < self.timings.critical

    def _is_mine(self) -> Step:
        """Return whether this process still holds the lease."""
        lease = yield Read("lease")
        return lease is not None and lease.nonce == self.lease.nonce

    def _write_in_time(self, slot: Slot, document: TokenPair | LoginHistory) -> Step:
        """Write a document; return False if the write was slow.

        A slow or failed write can take effect a second time. So this returns False, or raises, only after that time.
        """
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
            # Only the holder of the distributed lock writes the history, so the login need not wait.
            self._copies_until = began + self.timings.store
            return True
        yield Sleep(self.timings.store)
        return self.me.lock is not None

    def _outlast_copies(self) -> Step:
        """Wait until no slow write can take effect again, before the distributed lock is released."""
        if self._copies_until and (left := self._copies_until - (yield Now())) > 0:
            yield Sleep(left)

    def release(self, reason: ReleaseReason, holds: float = 0.0, detail: str = "") -> Step:
        """Release the lease and write the reason. If the write fails, other processes take over after a wait.

        :param holds: seconds for which other processes send no request to the bank, because of the reason.
        :param detail: status and code of the bank's response, for people.
        """
        try:
            if not (yield from self._is_mine()):
                return
            now: Moment = yield BankTime()
            self.lease = replace(
                self.lease, release_reason=reason, at=now.at, exact=now.exact, blocked_until=now.at + holds,
                detail=detail,
            )  # fmt: skip
            yield Write("lease", self.lease)
        except StoreUnavailable:
            return

    def _unavailable(self, response: BankResponse, what: str) -> Step:
        """Release the lease. :class:`Ended` after a 429, so that the next attempt waits; otherwise raise an error."""
        busy = response.status == TOO_MANY_REQUESTS and what != "the login"
        default = self.timings.repeat if busy else self.timings.bank_pause
        # A wrong Retry-After must not stop every task for hours.
        holds = min(response.retry_after if response.retry_after is not None else default, self.timings.refused_pause)
        yield from self.release("limited" if busy else "bank", holds, response.detail)
        if busy:
            return Ended(None)
        raise bank_unavailable(response, what, holds)
