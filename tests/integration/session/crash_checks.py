# SPDX-License-Identifier: Apache-2.0
"""Check the guarantees of the session protocol for a fleet in which a signal has hit the renewing process."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from tests.integration.session.crashes import Result
from tests.integration.session.steps import Entry

NEEDED = {"cold": 1, "expired": 0, "ended": 1}
"""The number of logins in a renewal without a fault."""


def made_before(result: Result) -> int:
    """Return the number of logins before the renewal, for the session in use."""
    return 0 if result.case.start == "cold" else 1


def extra_logins(result: Result) -> int:
    """Return the number of logins beyond those of a renewal without a fault."""
    return result.counters.logins - made_before(result) - NEEDED[result.case.start]


def lost(result: Result) -> int:
    """Return how many token pairs the bank may have issued that were not stored: after a kill, or a lost response."""
    unknown = sum(e.step in ("refresh", "log in") and e.what == "unknown" for e in result.entries)
    asked = "refresh" if result.case.start == "expired" else "log in"
    holding = False
    for entry in result.entries:
        if entry.who != "victim" or (entry.kind == "strike" and stopped(result)):
            continue
        holding |= entry.step == asked and entry.kind == "begin" and not struck(result, entry.step, "before")
        if entry.kind == "end" and (entry.step == "write session" or entry.what in ("refused", "unsent")):
            holding = False
        if entry.kind == "strike":
            break
    if stopped(result):
        # A process that continues after the takeover has lost the token pair that it had received before.
        strike = result.case.strike
        assert strike is not None
        holding = strike.step in ("refresh", "log in", "read session", "write session")
    return unknown + holding


def stopped(result: Result) -> bool:
    strike = result.case.strike
    return strike is not None and strike.signal == signal.SIGSTOP


def struck(result: Result, step: str, position: str) -> bool:
    strike = result.case.strike
    return strike is not None and (strike.step, strike.position) == (step, position)


def violations(result: Result) -> list[str]:
    """Return the violated guarantees, each in a few words."""
    return list(_violations(result))


def _violations(result: Result) -> Iterator[str]:
    case, counters, later = result.case, result.counters, result.later
    losses = lost(result)
    for who, said in result.said.items():
        if not said.ok:
            yield f"{who} did not come back to work: {', '.join(sorted(set(said.errors)))}"
        if "LoginBudgetExhausted" in said.errors:
            yield f"{who} had no login left"
    if not result.works:
        yield "the stored session does not work"
    if extra_logins(result) < 0:
        yield "fewer logins than there can be"
    if extra_logins(result) > losses:
        yield f"{extra_logins(result)} logins too many, where {losses} tokens were lost"
    if later.logins != counters.logins:
        yield f"{later.logins - counters.logins} logins for the next renewal"
    if later.refreshes - counters.refreshes != 1:
        yield f"{later.refreshes - counters.refreshes} refreshes for the next renewal"
    if later.refresh_early:
        yield f"{later.refresh_early} early refreshes"
    if later.refresh_reused > losses:
        yield f"{later.refresh_reused} refreshes with a used token, where {losses} tokens were lost"
    ends = {"cold": 0, "expired": 0, "ended": 2 if result.struck else 1}[case.start]
    if later.refresh_refused > ends:
        yield f"{later.refresh_refused} refused refreshes"
    if counters.refreshes > (1 + losses if case.start == "expired" else 0):
        yield f"{counters.refreshes} refreshes"
    if later.fraud_blocks or later.login_refused:
        yield "the bank refused a login"
    entered = len(result.history.logins) if result.history is not None else 0
    if not later.logins <= entered <= later.logins + 1:
        yield f"{entered} logins in the history, {later.logins} at the bank"
    yield from _stored(result, stopped(result))


def _stored(result: Result, late: bool) -> Iterator[str]:
    """Check that the stored session was never replaced by an older one."""
    newest: tuple[int, str] = (0, "")
    began: dict[str, Entry] = {}
    done: list[tuple[float, int, str]] = []
    for entry in result.entries:
        if entry.step not in ("write session", "read session", "look"):
            continue
        if entry.kind == "begin":
            began[entry.who + entry.step] = entry
        elif entry.kind == "end" and entry.gen is not None:
            begin = began[entry.who + entry.step].at
            newest = max(((gen, nonce) for at, gen, nonce in done if at < begin), default=(0, ""))
            older = entry.gen < newest[0]
            if entry.step == "write session":
                done.append((entry.at, entry.gen, entry.nonce))
                twin = entry.gen == newest[0] and entry.nonce != newest[1]
                # Stopped between its last read and its write: without a compare-and-swap, this cannot be detected.
                if (older or twin) and not (
                    late and entry.who == "victim" and struck(result, "write session", "before")
                ):
                    yield f"{entry.who} stored generation {entry.gen} over {newest[0]}"
            elif older:
                yield f"{entry.who} read generation {entry.gen} after {newest[0]} had been stored"
    if result.session is not None and result.session.gen < newest[0]:
        yield "the session stored in the end is an older one"
