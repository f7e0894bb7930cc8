# SPDX-License-Identifier: Apache-2.0
"""The guarantees against an adversary: Hypothesis chooses the next event, and shrinks failures."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from intergiro_provider.session.effects import LogIn, Probe, Read, Refresh, Renewer, Write
from tests.unit.session import line, variables
from tests.unit.session.actors import PRODUCTION, Use, Worker
from tests.unit.session.bank import RULES, Bank, Rule
from tests.unit.session.faults import Fault, Script, is_effect, read, write
from tests.unit.session.mutants import MUTANTS
from tests.unit.session.scene import KEY, TIMINGS, put, with_session
from tests.unit.session.world import World

NAMES = "abc"
LIFE = 90.0

workers = st.sampled_from(NAMES)
slots = st.sampled_from(["session", "lease", "logins"])


class Adversary(RuleBasedStateMachine):
    """A world of three workers with faults."""

    variant = PRODUCTION

    @initialize(
        bank=st.sampled_from(RULES),
        warm=st.booleans(),
        seed=st.integers(0, 1000),
        strict=st.booleans(),
        pace=st.sampled_from([2.0, 15.0, 45.0]),
    )
    def begin(self, bank: Rule, warm: bool, seed: int, strict: bool, pace: float) -> None:
        self.script = Script()
        self.pace = pace
        lock = "L" if strict else None
        members = [Worker(name, Renewer(key=KEY, lock=lock, name=name), work=2.0) for name in NAMES]
        self.world = World(members, bank=Bank(bank, LIFE), faults=self.script, seed=seed, api=0.3, variant=self.variant)
        if warm:
            with_session(self.world, age=LIFE + 1.0, lock=lock)

    @invariant()
    def time_passes(self) -> None:
        if hasattr(self, "world"):
            self.world.run(self.world.t + self.pace)

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 100.0, 160.0]))
    def wait(self, seconds: float) -> None:
        self.world.run(self.world.t + seconds)

    @rule(name=workers)
    def kill(self, name: str) -> None:
        self.world.kill(self.world[name])

    @rule(name=workers, slot=slots, seconds=st.floats(1.0, 39.0), late=st.floats(0.5, 39.0))
    def slow_write(self, name: str, slot: str, seconds: float, late: float) -> None:
        self.script.on(name, write(slot), Fault("slow", seconds, late))

    @rule(name=workers, slot=slots, late=st.none() | st.floats(0.5, 39.0))
    def failing_write(self, name: str, slot: str, late: float | None) -> None:
        self.script.on(name, write(slot), Fault("fail_applied" if late else "fail", 2.0, late))

    @rule(name=workers, slot=slots, times=st.integers(1, 4))
    def false_absence(self, name: str, slot: str, times: int) -> None:
        self.script.on(name, read(slot), Fault("missing"), times=times)

    @rule(
        name=workers,
        effect=st.sampled_from([Read, Write, Probe, Refresh, LogIn, Use]),
        seconds=st.sampled_from([1.0, 10.0, 60.0, TIMINGS.takeover + 10.0]),
        after=st.booleans(),
    )
    def stop(self, name: str, effect: type, seconds: float, after: bool) -> None:
        self.script.on(name, is_effect(effect), Fault("pause_after" if after else "pause", seconds))

    @rule(
        name=workers,
        effect=st.sampled_from([Refresh, LogIn]),
        kind=st.sampled_from(["lost", "dropped", "garbled", "unsent", "busy", "kill_after"]),
    )
    def bank_fault(self, name: str, effect: type, kind: str) -> None:
        self.script.on(name, is_effect(effect), Fault(kind))  # type: ignore[arg-type]

    @rule(mode=st.sampled_from(["up", "down", "readonly", "blind"]))
    def store(self, mode: variables.Mode) -> None:
        self.world.variables.mode = mode
        self.world.hits += 1

    @rule(mode=st.sampled_from(["up", "down", "ill", "mute"]))
    def bank(self, mode: line.Mode) -> None:
        self.world.line.mode = mode

    @rule()
    def session_ends(self) -> None:
        self.world.bank.end_sessions()

    @rule()
    def person_deletes(self) -> None:
        put(self.world, None)

    @rule()
    def lock_is_lost(self) -> None:
        self.world.lose_lock("L")

    def teardown(self) -> None:
        """After the last fault, every worker succeeds."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.variables.mode, world.line.mode = "up", "up"
        self.script.clear()
        calm = world.t + LIFE
        # Two hours: the budget may be used up by reservations on a clock that was not exact.
        world.run(calm + 9000.0, lambda: all(w.successes and w.successes[-1] > calm for w in world.workers))
        assert all(worker.successes and worker.successes[-1] > calm for worker in world.workers)


SETTINGS = settings(
    max_examples=100,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

TestAdversary = Adversary.TestCase
TestAdversary.settings = SETTINGS


@pytest.mark.parametrize("name", ["no lease at all", "release reason never expires", "store not probed"])
def test_adversary_finds_a_broken_rule(name: str) -> None:
    class Against(Adversary):
        variant = next(mutant.variant for mutant in MUTANTS if mutant.variant.name == name)

    # To find a failure is enough. Shrinking it would take long.
    quick = settings(SETTINGS, max_examples=2000, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Against, settings=quick)
