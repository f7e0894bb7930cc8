# SPDX-License-Identifier: Apache-2.0
"""Mutants in which one method of the production protocol is replaced."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from intergiro_provider.session import renewal as production
from intergiro_provider.session.documents import Lease, TokenPair
from intergiro_provider.session.effects import BankResponse, Moment, Sleep, Write
from intergiro_provider.session.holder import Holder
from intergiro_provider.session.renewal import Renewal

Step = Generator[Any, Any, Any]


def with_holder(changed: type[Holder]) -> type[Renewal]:
    """The production renewal, with another holder."""

    class Mutant(Renewal):
        def _attempt(self) -> Step:
            attempt = super()._attempt()
            # A generator reads its globals while it runs, and only one runs at a time.
            result: Any = None
            failure: BaseException | None = None
            while True:
                original = vars(production)["Holder"]
                vars(production)["Holder"] = changed
                try:
                    effect = attempt.throw(failure) if failure is not None else attempt.send(result)
                except StopIteration as end:
                    return end.value
                finally:
                    vars(production)["Holder"] = original
                failure = None
                try:
                    result = yield effect
                except Exception as error:
                    failure = error

    return Mutant


class NeverLooksAtTheLease(Holder):
    __slots__ = ()

    def _is_mine(self) -> Step:
        yield from ()
        return True


class NeverLooksAtTheSession(Holder):
    __slots__ = ()

    def _superseded(self) -> Step:
        if (yield from self._is_mine()):
            return None
        # The result for a lost lease.
        return (yield from super()._superseded())


class NeverWaitsOutASlowWrite(Holder):
    __slots__ = ()

    def _write_in_time(self, slot: Any, document: Any) -> Step:
        yield Write(slot, document)
        return True


class StoresAfterStamping(Holder):
    __slots__ = ()

    def _store(self, result: BankResponse, old: TokenPair | None, how: Any) -> Step:
        if how == "logged_in":
            yield Sleep(self.timings.settle_session)
        return (yield from super()._store(result, old, how))


class KeepsTheLeaseOfAFirstLogin(Holder):
    __slots__ = ()

    def release(self, reason: Any, holds: float = 0.0, detail: str = "") -> Step:
        if reason != "done":
            yield from super().release(reason, holds, detail)


class OutlastsNoCopies(Holder):
    __slots__ = ()

    def _outlast_copies(self) -> Step:
        yield from ()


class FailsAtTooManyRequests(Holder):
    __slots__ = ()

    def _unavailable(self, result: BankResponse, what: str) -> Step:
        return (yield from super()._unavailable(replace(result, status=503), what))


class TriesOnlyTheRefusedSession(Holder):
    __slots__ = ()

    def _due(self) -> Step:
        due = yield from super()._due()
        return due[:1]


class TakesOwnLeaseUnsettled(Renewal):
    def _write_lease(
        self, displaced: Lease | None, gen: int, pair: TokenPair | None, locked: bool, moment: Moment
    ) -> Step:
        before, own = (self._unsettled, self._settle), displaced is not None and displaced.nonce in self._own_nonces
        mine = yield from super()._write_lease(displaced, gen, pair, locked, moment)
        if own:
            self._unsettled, self._settle = before
        return mine


class TrustsAnyClock(Renewal):
    def _is_over(self, lease: Lease, now: Moment, pair: TokenPair | None) -> bool:
        return super()._is_over(replace(lease, exact=True), replace(now, exact=True), pair)


class TakesAYoungLease(Renewal):
    def _is_over(self, lease: Lease, now: Moment, pair: TokenPair | None) -> bool:
        return super()._is_over(replace(lease, at=0.0), now, pair)


class TakesWhatIsFree(Renewal):
    """Never waits for the holder of a lease."""

    def _is_free(self, lease: Lease) -> Step:
        yield from ()
        return True
