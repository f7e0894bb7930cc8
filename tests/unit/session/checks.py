# SPDX-License-Identifier: Apache-2.0
"""The guarantees, checked at every step of a simulated world.

Without a compare-and-swap, some guarantees cannot hold for a worker that was stopped, or whose own call or write failed
between the bank's response and the store, or that was paused so long that another worker took over. Only these cases
are excused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from intergiro_provider.session.documents import Lease, LoginHistory, TokenPair
from intergiro_provider.session.effects import LogIn, Probe, Refresh
from tests.unit.session.bank import Pair

if TYPE_CHECKING:
    from tests.unit.session.actors import Worker
    from tests.unit.session.world import World

HOUR = 3600.0


class Violation(AssertionError):
    """A guarantee does not hold."""


class Checks:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._gens: dict[str, int] = {}
        self._logins: list[float] = []
        self._nonces: list[tuple[float, str]] = []
        self.person_at = -1.0
        self.exclusion_at_risk = False
        self.late_at = -1.0
        self.max_renewal = 0.0

    def _fail(self, guarantee: str, worker: Worker, what: str) -> None:
        raise Violation(f"{guarantee} at {self._world.t:.3f} s by {worker.name}: {what}")

    def _is_excused(self, worker: Worker) -> bool:
        """Return whether a fault of this worker excuses that its token pair is lost or requested again."""
        if worker.acked is None:
            return True
        timings = self._world.timings
        return (
            worker.hit_at >= worker.call_started
            or worker.call_started - worker.acked >= timings.critical
            or self._world.t - worker.acked >= timings.takeover - 2 * timings.lease_round
        )

    # Renewals.

    def renewal_begins(self, worker: Worker) -> None:
        worker.renewing_since = self._world.t
        worker.paused, worker.hits, worker.acked = 0.0, 0, None
        worker.sent.clear()

    def renewal_ends(self, worker: Worker) -> None:
        """G6: it ended in time, not counting the time in which it was stopped, and slow operations."""
        since, timings = worker.renewing_since, self._world.timings
        worker.renewing_since, worker.holding, worker.calling = None, None, ""
        if since is None:
            return
        took = self._world.t - since - worker.paused
        self.max_renewal = max(self.max_renewal, took)
        bound = timings.wait + timings.settle_lease + timings.persist_until + 20.0
        if took > bound + worker.hits * timings.store:
            self._fail("G6", worker, f"the renewal took {took:.0f} s, {bound:.0f} s are allowed")

    def lease_acknowledged(self, worker: Worker, life: int, lease: Lease) -> None:
        if worker.life == life and lease.release_reason is None:
            worker.acked, worker.nonce = self._world.t, lease.nonce
            worker.sent.clear()

    # Bank calls.

    def bank_called(self, worker: Worker, effect: Probe | Refresh | LogIn) -> None:
        """A call is about to be sent."""
        world = self._world
        if worker.acked is None:
            self._fail("G4", worker, f"{type(effect).__name__} without an acknowledged lease of its own")
            return
        late = world.t - worker.acked >= world.timings.critical and worker.hit_at < worker.asked_clock_at
        # Under a distributed lock the lease has no timing conditions; the worker says when it is acknowledged.
        if late and worker.member.lock is None:
            self._fail("G2", worker, f"{type(effect).__name__} {world.t - worker.acked:.0f} s after its lease")
        if isinstance(effect, Probe):
            return
        name = effect.refresh_token if isinstance(effect, Refresh) else "the login"
        worker.sent[name] = worker.sent.get(name, 0) + 1
        if worker.sent[name] > (2 if isinstance(effect, Refresh) else 1):
            self._fail("G2", worker, f"{name} sent {worker.sent[name]} times under one lease")
        if isinstance(effect, Refresh):
            self._refresh_called(worker, effect)
            return
        for other in world.workers:
            if other is not worker and other.calling == "login" and not self._is_excused(other):
                if not self._was_stopped(worker):
                    self._fail("G2", worker, f"a second login while {other.name} is logging in")

    def _refresh_called(self, worker: Worker, effect: Refresh) -> None:
        """G1: no other worker has renewed, or is renewing, the pair that is refreshed here."""
        if self.exclusion_at_risk or self.person_at >= 0 or worker.hit_at >= worker.session_read_at:
            return
        stored = self._world.variables.documents["session"]
        if stored is not None and stored.gen > self._gens.get(effect.refresh_token, stored.gen):
            if not self._stored_late(worker):
                self._fail("G1", worker, "a refresh that a stored one has made unnecessary")
        for other in self._world.workers:
            if other is not worker and other.calling and not self._is_excused(other):
                self._fail("G1", worker, f"a refresh while {other.name} is asking the bank for a {other.calling}")

    def _was_stopped(self, worker: Worker) -> bool:
        """Return whether it was stopped after its last read of the lease, and lost the lease in that time."""
        return worker.hit_at >= worker.lease_read_at

    def login_carried_out(self, worker: Worker, alive: bool) -> None:
        """G2: a login is justified if no pair in the store, or about to be stored, can be used."""
        world, bank = self._world, self._world.bank
        if alive and not self._was_stopped(worker):
            self._nonces.append((world.t, worker.nonce))
        limit = worker.member.max_logins
        # A login that was stopped after its reservation counts at the time of the reservation.
        self._logins.append(worker.acked or world.t if self._was_stopped(worker) else world.t)
        recent = [at for at in self._logins[:-1] if at > world.t - HOUR]
        if len(recent) >= limit:
            self._fail("G2", worker, f"login number {len(recent) + 1} within an hour, {limit} are allowed")
        if not alive or self._was_stopped(worker) or self._is_excused(worker) or "session" in world.variables.shadow:
            return
        stored: TokenPair | None = world.variables.documents["session"]
        if stored is not None and bank.would_refresh(stored.refresh_token, world.t):
            if self.person_at < worker.session_read_at and not self._stored_late(worker):
                self._fail("G2", worker, "a login although the stored session can be refreshed")
        for other in world.workers:
            held = other.holding
            if other is worker or held is None or self._is_excused(other):
                continue
            if bank.would_refresh(held.refresh, world.t):
                self._fail("G2", worker, f"a login while {other.name} is about to store {held.refresh}")

    def _stored_late(self, reader: Worker) -> bool:
        """Return whether a worker has stored a session after its deadline and after this worker's last read."""
        return self.late_at >= reader.session_read_at

    def carried_out(self, worker: Worker, pair: Pair | None, alive: bool) -> None:
        """The bank has carried out a call."""
        bank = self._world.bank
        if bank.early:
            self._fail("G1", worker, "a refresh before the access token had expired")
        if alive and pair is not None:
            worker.holding = pair

    # The store.

    def session_written(self, old: TokenPair | None, new: TokenPair | None, writer: Worker | None, copy: bool) -> None:
        """G3: a stored, still current refresh token is not overwritten by an older one."""
        world, bank = self._world, self._world.bank
        if writer is None:
            self.person_at = world.t
        if new is None:
            return
        # A renewal that rewrites a stored session also uses its nonce.
        rewritten = " " in new.writer
        self._gens[new.refresh_token] = max(new.gen, self._gens.get(new.refresh_token, 0))
        if writer is None:
            return
        # Stored after its deadline: a process may have taken over.
        if self._is_excused(writer):
            self.exclusion_at_risk = True
            self.late_at = world.t
        if writer.holding is not None and writer.holding.refresh == new.refresh_token:
            writer.holding = None
        if old is None or old.refresh_token == new.refresh_token:
            return
        if new.gen <= old.gen or self._is_older(new, old):
            if not bank.would_refresh(old.refresh_token, world.t):
                return
            if copy and not rewritten:
                return
            if self._is_excused(writer) or writer.hit_at >= writer.session_read_at:
                return
            self._fail("G3", writer, f"generation {old.gen} overwritten by {new.gen}")

    def logins_written(self, old: LoginHistory | None, new: LoginHistory, writer: Worker, copy: bool) -> None:
        """G2: no login of the last hour is removed from the login history; after a late copy, the session shows it."""
        if copy or writer.hit_at >= writer.lease_read_at or old is None:
            return
        struck = {entry.nonce for entry in old.logins} - {entry.nonce for entry in new.logins}
        for at, nonce in self._nonces:
            if at > self._world.t - HOUR and nonce in struck:
                self._fail("G2", writer, f"the login under {nonce} is removed from the login history")

    def lease_written(self, writer: Worker, copy: bool) -> None:
        """A late copy, or the write of a worker that was stopped after its read, may overwrite a held lease."""
        self.exclusion_at_risk |= copy or writer.hit_at >= writer.lease_read_at

    def _is_older(self, new: TokenPair, old: TokenPair) -> bool:
        pairs = self._world.bank.pairs
        new_pair, old_pair = pairs.get(new.refresh_token), pairs.get(old.refresh_token)
        return new_pair is not None and old_pair is not None and new_pair.number < old_pair.number
