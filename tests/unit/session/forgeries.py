# SPDX-License-Identifier: Apache-2.0
"""Mutants between the production protocol and the world, which forge a result or drop an effect."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any

from intergiro_provider.session.documents import Lease, LoginHistory, TokenPair
from intergiro_provider.session.effects import (
    BankResponse,
    ConfirmAbsent,
    LogIn,
    Outcome,
    Probe,
    Read,
    Refresh,
    Renewed,
    Renewer,
    Sleep,
    Write,
)
from intergiro_provider.session.renewal import Renewal
from intergiro_provider.session.timings import Timings

Step = Generator[Any, Any, Any]


@dataclass(slots=True)
class Memory:
    """The state of a mutant during one renewal."""

    me: Renewer
    session: TokenPair | None = None
    lease: Lease | None = None
    history: LoginHistory | None = None
    flags: set[str] = field(default_factory=set)


Forge = Callable[[Memory, Any], Step]
"""Carries out one effect for the protocol: yields effects to the world, and returns the result."""


def through(forge: Forge) -> type[Renewal]:
    """Return the production renewal, with this forgery between it and the world."""

    class Mutant(Renewal):
        def run(self, waited: float = 0.0) -> Generator[Any, Any, Renewed]:
            inner, memory = super().run(waited), Memory(self._me)
            result: Any = None
            failure: BaseException | None = None
            while True:
                try:
                    effect = inner.throw(failure) if failure is not None else inner.send(result)
                except StopIteration as end:
                    renewed: Renewed = end.value
                    return renewed
                failure = None
                try:
                    result = yield from forge(memory, effect)
                except Exception as error:
                    failure = error
                    continue
                if isinstance(effect, Read) and effect.slot == "session":
                    memory.session = result
                elif isinstance(effect, Read) and effect.slot == "lease":
                    memory.lease = result

    return Mutant


def believe_404(memory: Memory, effect: Any) -> Step:
    if isinstance(effect, ConfirmAbsent):
        return True
    return (yield effect)


def no_settling_of_the_lease(memory: Memory, effect: Any) -> Step:
    if isinstance(effect, Sleep) and effect.seconds == Timings().settle_lease:
        return None
    return (yield effect)


def no_read_back_of_the_lease(memory: Memory, effect: Any) -> Step:
    if isinstance(effect, Write) and effect.slot == "lease":
        memory.lease = effect.document  # type: ignore[assignment]
        memory.flags.add("written")
    elif isinstance(effect, Read) and effect.slot == "lease" and "written" in memory.flags:
        memory.flags.discard("written")
        return memory.lease
    return (yield effect)


def no_lease(memory: Memory, effect: Any) -> Step:
    if isinstance(effect, Write) and effect.slot == "lease":
        yield effect
        memory.lease = effect.document  # type: ignore[assignment]
        return None
    if isinstance(effect, Read) and effect.slot == "lease":
        return memory.lease
    if isinstance(effect, ConfirmAbsent) and effect.slot == "lease":
        return True
    return (yield effect)


def no_lock_fingerprint(memory: Memory, effect: Any) -> Step:
    result = yield effect
    if isinstance(effect, Read) and effect.slot == "session" and result is not None:
        return replace(result, lock=memory.me.lock)
    return result


def ignore_release_reasons(memory: Memory, effect: Any) -> Step:
    result = yield effect
    if isinstance(effect, Read) and effect.slot == "lease" and result is not None and result.release_reason is not None:
        return replace(result, release_reason="free")
    return result


def release_reasons_for_ever(memory: Memory, effect: Any) -> Step:
    result = yield effect
    if isinstance(effect, Read) and effect.slot == "lease" and result is not None and result.release_reason is not None:
        return replace(result, blocked_until=4e9)
    return result


def never_backwards(memory: Memory, effect: Any) -> Step:
    result = yield effect
    if isinstance(effect, Read) and effect.slot == "lease" and result is not None and memory.session is not None:
        if result.gen > memory.session.gen:
            return replace(result, gen=-1)
    return result


def no_second_look_when_backwards(memory: Memory, effect: Any) -> Step:
    if isinstance(effect, Read) and effect.slot == "session" and memory.lease is not None:
        if memory.session is not None and memory.lease.gen > memory.session.gen:
            memory.lease = None
            return memory.session
    return (yield effect)


def refresh_three_times(memory: Memory, effect: Any) -> Step:
    result = yield effect
    if isinstance(effect, Refresh) and result.outcome is Outcome.UNKNOWN:
        yield Sleep(1.0)
        return (yield effect)
    return result


def log_in_twice(memory: Memory, effect: Any) -> Step:
    result = yield effect
    if isinstance(effect, LogIn) and result.outcome is Outcome.UNKNOWN:
        yield Sleep(1.0)
        return (yield effect)
    return result


def log_in_after_unknown(memory: Memory, effect: Any) -> Step:
    result = yield effect
    if isinstance(effect, Refresh) and result.outcome in (Outcome.UNKNOWN, Outcome.UNAVAILABLE):
        return BankResponse(Outcome.REFUSED)
    return result


def no_probe(memory: Memory, effect: Any) -> Step:
    if isinstance(effect, Probe):
        return BankResponse(Outcome.REFUSED)
    return (yield effect)


def no_look_before_storing(memory: Memory, effect: Any) -> Step:
    if isinstance(effect, Write) and effect.slot == "session":
        memory.flags.discard("fresh")
    elif isinstance(effect, Read) and effect.slot == "session" and "fresh" in memory.flags:
        return None
    result = yield effect
    if isinstance(effect, Refresh | LogIn) and result.outcome is Outcome.OK:
        memory.flags.add("fresh")
    return result


def no_login_history(memory: Memory, effect: Any) -> Step:
    if isinstance(effect, Write) and effect.slot == "logins":
        memory.history = effect.document  # type: ignore[assignment]
        return None
    if isinstance(effect, Read) and effect.slot == "logins" and memory.history is not None:
        return memory.history
    return (yield effect)


def no_probe_of_the_store(memory: Memory, effect: Any) -> Step:
    """Continue although the lease cannot be written."""
    if isinstance(effect, Write) and effect.slot == "lease":
        memory.lease = effect.document  # type: ignore[assignment]
        try:
            yield effect
        except Exception:
            memory.flags.add("unwritten")
        return None
    if isinstance(effect, Read) and effect.slot == "lease" and "unwritten" in memory.flags:
        return memory.lease
    return (yield effect)
