# SPDX-License-Identifier: Apache-2.0
"""Fewer requests at once after a 429, more again later."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from intergiro_provider.pull.pace import GOOD_ANSWERS, LONGEST_PAUSE, Pace


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(8, logging.getLogger("pace"), clock)


def test_a_429_halves_what_may_be_under_way(pace: Pace, clock: Clock) -> None:
    for expected in (4, 2, 1, 1):
        pace.answered(429, 1.0)
        assert pace.allowed == expected
        clock.now += 2


def test_those_refused_together_count_once(pace: Pace) -> None:
    for _ in range(8):
        pace.answered(429, 1.0)
    assert pace.allowed == 4


def test_good_answers_bring_one_more_at_a_time(pace: Pace, clock: Clock) -> None:
    pace.answered(429, None)
    clock.now += 2
    for _ in range(GOOD_ANSWERS):
        assert pace.allowed == 4
        pace.answered(200, None)
    assert pace.allowed == 5
    for _ in range(100 * GOOD_ANSWERS):
        pace.answered(200, None)
    assert pace.allowed == 8


def test_it_is_said_once(pace: Pace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(8):
        pace.answered(429, 1.0)
    assert [r.getMessage() for r in caplog.records] == [
        "The bank asks for fewer requests (429): 4 at once from now on."
    ]


def test_nobody_goes_before_the_bank_allows_it() -> None:
    pace = Pace(4, logging.getLogger("pace"))
    pace.answered(429, 0.6)
    began = time.monotonic()
    with pace.leave():
        assert time.monotonic() - began >= 0.55


def test_a_bank_that_asks_for_a_century_is_not_waited_for(pace: Pace, clock: Clock) -> None:
    pace.answered(429, 3e9)
    clock.now += LONGEST_PAUSE
    with pace.leave():
        pass


def test_no_more_than_allowed_are_under_way() -> None:
    pace = Pace(3, logging.getLogger("pace"))
    under_way, most = [0], [0]
    lock = threading.Lock()

    def work() -> None:
        for _ in range(20):
            with pace.leave():
                with lock:
                    under_way[0] += 1
                    most[0] = max(most[0], under_way[0])
                time.sleep(0.001)
                with lock:
                    under_way[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 3


def test_who_waits_when_it_stops_is_let_go(pace: Pace) -> None:
    pace.allowed = 0
    let_go = threading.Event()

    def wait() -> None:
        with pace.leave():
            let_go.set()

    threading.Thread(target=wait, daemon=True).start()
    assert not let_go.wait(0.1)
    pace.stop()
    assert let_go.wait(5)
