# SPDX-License-Identifier: Apache-2.0
"""The concurrency limit, against simulated banks on a virtual clock."""

from __future__ import annotations

import heapq
import logging
import statistics
import threading
from collections.abc import Callable

import pytest

from intergiro_provider.pull.pace import IN_A_ROW, Pace, TooManyRequests

LOG = logging.getLogger("pace")


class Simulation:
    """Threads that pull pages from a bank with a number of servers, on a virtual clock.

    :param latency: seconds for transport. :param service: seconds of a server for a page.
    :param refused: takes the time and the number of requests in progress; returns whether a request gets a 429.
    """

    def __init__(
        self,
        servers: int = 100,
        service: float = 0.0,
        latency: float = 0.0,
        refused: Callable[[float, int], bool] = lambda now, under_way: False,
    ) -> None:
        self.now = 0.0
        self.service, self.latency, self.refused = service, latency, refused
        self.free = [0.0] * servers
        self.pace = Pace(16, LOG, lambda: self.now)
        self.limits: list[int] = []
        self.refusals = 0

    def seconds(self) -> float:
        begins = max(self.now, heapq.heappop(self.free))
        heapq.heappush(self.free, begins + self.service)
        return begins + self.service + self.latency - self.now

    def run(self, pages: int) -> float:
        """Pull pages, and return the duration in seconds."""
        pace = self.pace
        turns = [type(pace._turn)() for _ in range(16)]
        resting = [(0.0, number) for number in range(16)]
        under_way: list[tuple[float, int, float]] = []
        while pages or under_way:
            ready = sorted((e for e in resting if e[0] <= self.now), key=lambda entry: entry[1])
            while pages and ready and pace._under_way < pace.limit:
                number = ready.pop(0)[1]
                resting = [entry for entry in resting if entry[1] != number]
                pace._turn = turns[number]
                pace._enter()
                self.begin(number, under_way)
                pages -= 1
            if not under_way:
                self.now = min(entry[0] for entry in resting)
                continue
            self.now, number, began = heapq.heappop(under_way)
            pace._turn = turns[number]
            rest = 0.0
            if self.refused(began, len(under_way) + 1):
                self.refusals += 1
                pages += 1
                try:
                    pace.on_response(429, 1.0)
                    rest = 1.5  # as the client waits
                except TooManyRequests as crowded:
                    rest = crowded.seconds
            else:
                pace.on_response(200, None)
                pace._finished()
            self.limits.append(pace.limit)
            if not rest and pages and pace._under_way <= pace.limit:
                self.begin(number, under_way)
                pages -= 1
            else:
                pace._leave()
                heapq.heappush(resting, (self.now + rest, number))
        return self.now

    def begin(self, number: int, under_way: list[tuple[float, int, float]]) -> None:
        """Let a thread request its next page."""
        self.pace._turn.limit_number = self.pace._limit_number
        heapq.heappush(under_way, (self.now + self.seconds(), number, self.now))


def test_it_grows_while_that_pays() -> None:
    bank = Simulation(latency=0.02)
    took = bank.run(1000)
    assert bank.limits[-1] == 16
    assert took <= 1.15 * 1000 / 16 * 0.02


@pytest.mark.parametrize("best", [1, 2, 4, 8])
def test_it_stops_where_the_bank_or_the_processor_has_enough(best: int) -> None:
    bank = Simulation(servers=best, service=0.001)
    bank.run(4000)
    assert statistics.median(bank.limits) == best
    assert sum(limit > best for limit in bank.limits) < 0.1 * len(bank.limits)


@pytest.mark.parametrize("slow", range(6))
def test_one_slow_page_at_the_beginning_does_not_keep_it_small(slow: int) -> None:
    bank = Simulation(latency=0.02)
    bank.run(slow)
    bank.latency = 1.0
    bank.run(1)
    bank.latency = 0.02
    began = bank.now
    bank.run(1000)
    assert bank.limits[-1] == 16
    assert bank.now - began <= 1.5 * 1000 / 16 * 0.02


@pytest.mark.parametrize("rate", [1, 2, 5, 20])
@pytest.mark.parametrize("latency", [0.001, 0.02])
def test_a_rate_limit_is_met_with_one_request_at_a_time(rate: float, latency: float) -> None:
    last = -10.0

    def refused(now: float, under_way: int) -> bool:
        nonlocal last
        if now - last < 1 / rate:
            return True
        last = now
        return False

    bank = Simulation(latency=latency, refused=refused)
    bank.run(60)
    assert max(bank.limits) <= 2
    assert bank.limits.count(1) > 0.9 * len(bank.limits)


def test_a_limit_of_requests_at_once_is_found() -> None:
    bank = Simulation(latency=0.02, refused=lambda now, under_way: under_way > 5)
    bank.run(5000)
    assert bank.limits[-1] in (4, 5)
    assert bank.refusals < 0.05 * 5000


def test_a_bank_that_slows_down_gets_fewer() -> None:
    bank = Simulation(latency=0.02)
    bank.run(1000)
    bank.free, bank.service = [bank.now] * 2, 0.02
    bank.run(300)
    assert bank.limits[-1] <= 8


def test_those_refused_together_count_once_and_none_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pace = Pace(8, LOG)
    pace.limit = 8
    barrier, crowded = threading.Barrier(8), []

    def work() -> None:
        with pace.turns(), pace.page():
            barrier.wait()
            try:
                pace.on_response(429, 0.0)
            except TooManyRequests as refused:
                crowded.append(refused.seconds)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (pace.limit, crowded) == (4, [0.1] * 8)
    assert [r.getMessage() for r in caplog.records] == [
        "The bank returned 429. The pull reduces its requests to 4 at once."
    ]


def test_many_in_a_row_are_a_failure() -> None:
    pace = Pace(8, LOG)
    with pace.turns(), pace.page():
        for _ in range(2):
            waits = []
            for _ in range(IN_A_ROW):
                with pytest.raises(TooManyRequests) as refused:
                    pace.on_response(429, None)
                waits.append(refused.value.seconds)
            pace.on_response(429, None)
            pace.on_response(200, None)
            assert waits == sorted(waits)
            assert sum(waits) < 30
    assert pace.limit == 1


@pytest.mark.parametrize(("retry_after", "waits"), [(60.0, 5), (20.0, 15), (61.0, 0), (1000.0, 0)])
def test_a_long_wait_is_for_airflows_retries(retry_after: float, waits: int) -> None:
    pace = Pace(8, LOG)
    with pace.turns(), pace.page():
        for _ in range(waits):
            with pytest.raises(TooManyRequests):
                pace.on_response(429, retry_after)
        pace.on_response(429, retry_after)


def test_no_more_than_the_limit_are_under_way() -> None:
    pace = Pace(3, LOG)
    pace.limit = 3
    under_way, most = [0], [0]
    lock = threading.Lock()

    def work() -> None:
        for _ in range(20):
            with pace.turns(), pace.page():
                with lock:
                    under_way[0] += 1
                    most[0] = max(most[0], under_way[0])
                with lock:
                    under_way[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 3


@pytest.mark.parametrize("backs_off", [True, False])
def test_what_waits_when_it_stops_goes_on(backs_off: bool) -> None:
    pace = Pace(8, LOG)
    went_on = threading.Event()

    def wait() -> None:
        with pace.turns(), pace.page():
            if backs_off:
                pace.back_off(60.0)
            went_on.set()

    if not backs_off:
        pace.limit = 0
    threading.Thread(target=wait, daemon=True).start()
    assert not went_on.wait(0.1)
    pace.stop()
    assert went_on.wait(60)
