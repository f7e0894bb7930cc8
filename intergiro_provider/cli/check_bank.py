# SPDX-License-Identifier: Apache-2.0
"""The findings of `check` about the bank: whether it can be reached, how fast it responds, and its clock."""

from __future__ import annotations

import time

from intergiro_provider.cli.findings import Finding, by_time, timed
from intergiro_provider.cli.state import session_state
from intergiro_provider.cli.target import TIMINGS, Target
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.session.effects import BankResponse

CLOCK = 60.0
"""Seconds by which clocks may differ without a warning."""


def clock_and_reach(at: Target) -> tuple[Finding, Finding]:
    """Send one request without a token; return the findings about the clock and the response."""
    response, took = timed(at.bank.reach)
    return _clock(at, response), _reach(at, response, took)


def _reach(at: Target, response: BankResponse, took: float) -> Finding:
    where = at.settings.origin
    if not response.status:
        return Finding(
            "bank", "error", f"No response from {where}: {response.why}.", "Check the host, the network and `proxies`."
        )
    found = f"{where} responds in {took * 1000:.0f} ms, connection included; the limit is {TIMINGS.call:.0f} s."
    if response.status != 401:
        return Finding(
            "bank",
            "warning",
            f"{found} But its status for a request without a token is {response.status}; 401 is expected.",
            "Check the host; if it is right, ask Intergiro whether this machine's address may use the API.",
        )
    state = by_time(took, TIMINGS.call)
    return Finding("bank", state, found, None if state == "ok" else "Check the network and `proxies`.")


def _clock(at: Target, response: BankResponse) -> Finding:
    if response.at is None:
        return Finding("clock", "ok", "The bank's response has no Date header.")
    # HTTP dates are whole seconds.
    ahead = round(time.time() - response.at - 0.5)
    if abs(ahead) <= CLOCK:
        return Finding("clock", "ok", f"This machine's clock and the bank's differ by {abs(ahead)} s.")
    return Finding(
        "clock",
        "warning",
        f"This machine's clock is {abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'} the bank's.",
        "Use NTP. Logins are counted by the bank's clock, but Airflow's own tokens need correct clocks.",
    )


def login(at: Target) -> Finding:
    """Log in to check whether the bank accepts the API key, unless the login budget is used up."""
    logins = session_state(at)["logins"]
    if logins["counted"] is None:
        return Finding("login", "warning", "Not tried: the login history cannot be read.")
    if next_at := logins["next_at"]:
        return Finding("login", "warning", f"Not tried: the login budget is used up until {next_at}.")
    works, said = IntergiroHook(at.conn_id).test_connection()
    return Finding("login", "ok" if works else "error", said)
