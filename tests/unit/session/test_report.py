# SPDX-License-Identifier: Apache-2.0
"""The log lines and metrics of a renewal."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import pytest

from intergiro_provider.exceptions import BankUnavailable, LoginBudgetExhausted, ShadowedError
from intergiro_provider.session.documents import Login, LoginHistory, TokenPair
from intergiro_provider.session.driver import SharedSession
from intergiro_provider.session.effects import BankResponse, Outcome, Renewed, Renewer
from intergiro_provider.session.errors import SOON, login_reason
from intergiro_provider.session.report import Report
from tests.unit.session.memory import QUICK, MemoryStore, PlainBank

SESSION = TokenPair("secret-a", "secret-r", 7, "n", key="k")


class Recorded:
    """Metrics that are recorded."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.times: dict[str, list[float]] = {}

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number

    def time(self, name: str, seconds: float) -> None:
        self.times.setdefault(name, []).append(seconds)


@pytest.fixture(autouse=True)
def own_lock_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def metrics() -> Recorded:
    return Recorded()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="intergiro_provider.session")
    return caplog


def shared(store: MemoryStore, bank: PlainBank, metrics: Recorded) -> SharedSession:
    return SharedSession(store, bank, Renewer("k", name="host:1"), QUICK, metrics=metrics)


def told(log: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in log.records if record.name == "intergiro_provider.session"]


def levels(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in told(log)]


def test_the_first_login_and_a_refresh_are_one_line_each(
    request: pytest.FixtureRequest, log: pytest.LogCaptureFixture, metrics: Recorded
) -> None:
    session = shared(MemoryStore(request.node.name), PlainBank(), metrics)
    session.renew(session.current(), "")

    assert levels(log) == ["INFO", "INFO"]
    first, second = (record.getMessage() for record in told(log))
    assert first.startswith("Logged in to Intergiro, since no session was stored: generation 1, by host:1; the renewal")
    assert second.startswith("Refreshed the Intergiro session: generation 2, by host:1; the renewal took ")
    assert metrics.counts == {"renewals": 2, "logins": 1}
    assert len(metrics.times["renewal_duration"]) == 2


def test_a_session_that_is_there_is_not_worth_a_word(
    request: pytest.FixtureRequest, log: pytest.LogCaptureFixture, metrics: Recorded
) -> None:
    store = MemoryStore(request.node.name)
    store.documents["session"] = SESSION
    shared(store, PlainBank(), metrics).current()

    assert not told(log)
    assert not metrics.counts
    assert not metrics.times


def test_who_waited_says_how_long(log: pytest.LogCaptureFixture, metrics: Recorded) -> None:
    report = Report(metrics, "v", "host:1")
    report.waited = True
    report.ended(Renewed(SESSION, "found"), 2.5)

    assert "Another task has renewed the Intergiro session: generation 7; this one waited 2.5 s." in log.text
    assert metrics.times == {"wait": [2.5]}


def test_a_login_soon_after_another_is_a_warning(
    request: pytest.FixtureRequest, log: pytest.LogCaptureFixture, metrics: Recorded
) -> None:
    store, bank = MemoryStore(request.node.name), PlainBank()
    session = shared(store, bank, metrics)
    first = session.current()
    bank.valid = "the session has ended at the bank"
    session.renew(first, "")

    assert levels(log) == ["INFO", "WARNING"]
    assert re.search(r"since the former session has ended \(only \d s after another login\): generation 2", log.text)
    assert metrics.counts == {"renewals": 2, "logins": 2, "unexpected_logins": 1, "refused": 1}


def test_a_failed_renewal_is_counted(request: pytest.FixtureRequest, metrics: Recorded) -> None:
    class Ill(PlainBank):
        def log_in(self) -> BankResponse:
            return BankResponse(Outcome.UNAVAILABLE, 503)

    with pytest.raises(BankUnavailable):
        shared(MemoryStore(request.node.name), Ill(), metrics).current()
    assert metrics.counts == {"failures": 1}


@pytest.mark.parametrize("error", [ShadowedError("remove it"), LoginBudgetExhausted(time.time(), "next one at noon")])
def test_what_somebody_has_to_mend_is_an_error_in_the_log(
    error: Exception, log: pytest.LogCaptureFixture, metrics: Recorded
) -> None:
    Report(metrics, "v", "host:1").failed(error)

    assert levels(log) == ["ERROR"]
    assert str(error) in log.text


def test_the_error_at_an_exhausted_budget_comes_from_the_protocol(
    request: pytest.FixtureRequest, log: pytest.LogCaptureFixture, metrics: Recorded
) -> None:
    store, bank = MemoryStore(request.node.name), PlainBank()
    session = shared(store, bank, metrics)
    with pytest.raises(LoginBudgetExhausted):
        for _ in range(4):
            bank.valid = "the session has ended at the bank"
            session.renew(session.current(), "")

    assert bank.logins == 3
    assert levels(log)[-1] == "ERROR"
    assert "`max_logins_per_hour`" in told(log)[-1].getMessage()


def test_metrics_that_fail_cost_no_session(request: pytest.FixtureRequest) -> None:
    class Broken(Recorded):
        def count(self, name: str, number: int = 1) -> None:
            raise OSError(name)

    assert shared(MemoryStore(request.node.name), PlainBank(), Broken()).current().gen == 1


@pytest.mark.parametrize(
    ("pair", "unsettled", "earlier", "why", "unexpected"),
    [
        (None, False, None, "no session was stored", False),
        (None, True, None, "no session was stored", False),
        (None, False, SOON - 1, "no session was stored (only 1799 s after another login)", True),
        (SESSION, False, SOON + 1, "the former session has ended", False),
        (SESSION, True, 3600.0, "an earlier renewal may have lost a newer one", True),
    ],
)
def test_why_a_login_was_made(
    pair: TokenPair | None, unsettled: bool, earlier: float | None, why: str, unexpected: bool
) -> None:
    logins = [Login(10_000.0, "mine", 13_600.0)]
    if earlier is not None:
        logins.insert(0, Login(10_000.0 - earlier, "other", 13_000.0))
    said, surprising = login_reason(pair, unsettled, LoginHistory(tuple(logins)), "mine")

    assert said.endswith(why)
    assert surprising is unexpected
