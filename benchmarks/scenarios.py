# SPDX-License-Identifier: Apache-2.0
"""The scenarios: pullers, lists, latencies and rounds."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.loads import Loads
from benchmarks.runs import EMPTY, SPAN, Bank, Figures, Puller, median
from intergiro_provider.exceptions import IntergiroValueError

OURS = Puller("ours", "ours", windows=16)
OURS_1 = Puller("ours, 1 cursor", "ours")
FIXED = tuple(Puller(f"ours, {n} windows from the beginning", "ours", windows=n, fixed=True) for n in (1, 2, 4, 8, 16))
PARQUET = Puller("ours, Parquet", "ours", windows=16, file_format="parquet")
BYTES = Puller("requests, bodies not decoded", "bare_requests")
JSON = Puller("requests, json.loads", "requests_json")
HTTP_HOOK = Puller("HttpHook in a loop", "http_hook")
HTTP_OPERATOR = Puller("HttpOperator, pagination_function", "http_operator")
DLT_CLIENT = Puller("dlt RESTClient in a loop", "dlt_client", "dlt")
DLT = Puller("dlt rest_api pipeline", "dlt_rest_api", "dlt")
SINGER = Puller("singer-sdk tap", "singer_tap", "singer")
AIRBYTE = Puller("airbyte-cdk low-code source", "airbyte_low_code", "airbyte")
SOCKETS = Puller("16 bare sockets: what the sandbox can do", "sockets", windows=16)


def over_tls(puller: Puller) -> Puller:
    """The same, over TLS."""
    return dataclasses.replace(puller, title=f"{puller.title}, TLS", tls=True)


PEERS = (HTTP_HOOK, HTTP_OPERATOR, DLT_CLIENT, DLT, SINGER, AIRBYTE)

Measured = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class SideBySide:
    """Pullers of one bank at one latency, in turns.

    :param once: those that are measured in the first round only: they mostly wait, which hardly varies.
    """

    title: str
    latency: float
    pullers: tuple[Puller, ...]
    once: tuple[Puller, ...] = ()

    def measure(self, rows: int, rounds: int, say: Say, with_peers: bool) -> Measured:
        """Each puller's medians, by title."""
        runs: dict[str, list[Figures]] = {}
        with Bank(rows) as bank:
            for number in range(rounds):
                for puller in (*self.pullers, *self.once) if not number else self.pullers:
                    if not with_peers and puller.environment != "ours":
                        continue
                    figures = bank.measure(puller, self.latency)
                    say(f"{puller.title}: {figures.wall:.2f} s, {figures.cpu:.2f} s of CPU")
                    runs.setdefault(puller.title, []).append(figures)
        return {title: dataclasses.asdict(median(each)) | {"runs": len(each)} for title, each in runs.items()}


@dataclass(frozen=True)
class Limited:
    """Ours beside one cursor where the bank allows so many requests a second, one at a time."""

    title: str = "a bank with a rate limit"
    forms: tuple[str, ...] = ("seconds", "none")
    rates: tuple[tuple[float, int], ...] = ((1.0, 20), (2.0, 30), (5.0, 60), (20.0, 60))
    """Requests a second, and the pages that are pulled."""

    def measure(self, rows: int, rounds: int, say: Say, with_peers: bool) -> Measured:
        """By limit, then by puller: seconds, and how often the bank said 429."""
        found: Measured = {}
        for rate, pages in self.rates:
            with Bank(pages * 100) as bank:
                for form in self.forms:
                    limits: dict[str, Any] = {
                        "requests_per_second": rate, "request_burst": 1.0,
                        "retry_after": 1.0 / rate, "retry_after_form": form,
                    }  # fmt: skip
                    title = f"{rate:g} requests/s, {'with' if form == 'seconds' else 'without'} Retry-After"
                    runs: dict[str, list[Figures]] = {}
                    for _ in range(rounds):
                        for puller in (OURS, OURS_1):
                            figures = bank.measure(puller, 0.02, **limits)
                            say(f"{title}, {puller.title}: {figures.wall:.2f} s, {figures.refused} times 429")
                            runs.setdefault(puller.title, []).append(figures)
                    # Waits are random: of few runs the mean says more than the median.
                    found[title] = {
                        name: {"wall": statistics.fmean(r.wall for r in each), "refused": each[0].refused,
                               "requests": each[0].requests, "pages": pages, "runs": len(each)}
                        for name, each in runs.items()
                    }  # fmt: skip
        return found


@dataclass(frozen=True)
class Few:
    """Requests for a day with few records or none."""

    title: str = "a day with few records"

    def measure(self, rows: int, rounds: int, say: Say, with_peers: bool) -> Measured:
        """By records."""
        found: Measured = {}
        for records in (0, 100):
            with Bank(max(records, 1)) as bank:
                figures = bank.measure(OURS, span=SPAN if records else EMPTY, expected=records)
                say(f"{records} records: {figures.requests} requests")
                found[str(records)] = dataclasses.asdict(figures)
        return found


@dataclass(frozen=True)
class Growth:
    """Our peak memory for few rows and for a hundred times as many."""

    title: str = "many rows"

    def measure(self, rows: int, rounds: int, say: Say, with_peers: bool) -> Measured:
        """By title, then `few` and `many`."""
        found: Measured = {}
        for name, count in (("few", rows // 10), ("many", rows * 10)):
            with Bank(count) as bank:
                for puller in (OURS, PARQUET):
                    if puller.file_format == "parquet" and not writes_parquet():
                        continue
                    figures = bank.measure(puller)
                    say(f"{puller.title}: {figures.rows:,} rows, {figures.wall:.2f} s, {figures.peak_mb:.0f} MB")
                    found.setdefault(puller.title, {})[name] = dataclasses.asdict(figures)
        return found


@dataclass(frozen=True)
class Small:
    """What is measured inside one process."""

    title: str
    script: str

    def measure(self, rows: int, rounds: int, say: Say, with_peers: bool) -> Measured:
        """What the script says."""
        with Bank(100) as bank:
            said = bank.say(self.script)
        say(", ".join(f"{name} {value:.1f}" for name, value in said.items()))
        return said


Scenario = SideBySide | Limited | Few | Growth | Small | Loads

SCENARIOS: Mapping[str, Scenario] = {
    "parse": Small("DAG files", "parsing"),
    "auth": Small("authentication", "authentication"),
    "pieces": Small("one page", "pieces"),
    "few": Few(),
    "0ms": SideBySide(
        "no latency",
        0.0,
        (OURS, *FIXED, BYTES, JSON, HTTP_OPERATOR, HTTP_HOOK, OURS_1, DLT_CLIENT),
        (DLT, SINGER, AIRBYTE),
    ),
    "20ms": SideBySide("20 ms", 0.02, (OURS, FIXED[-1], SOCKETS), (*FIXED[:-1], BYTES, JSON, *PEERS)),
    "100ms": SideBySide("100 ms", 0.1, (OURS, FIXED[-1]), (BYTES,)),
    "tls": SideBySide("20 ms, over TLS", 0.02, (over_tls(OURS),), (over_tls(BYTES),)),
    "limited": Limited(),
    "memory": Growth(),
    "load": Loads("loads into a warehouse"),
    "load_many": Loads("loads into a warehouse, ten times the rows", times=10, rounds=1),
}


def writes_parquet() -> bool:
    """Whether this version can."""
    from intergiro_provider.pull.formats import get_format

    try:
        get_format("parquet", None)
    except IntergiroValueError:
        return False
    return True


def measured(name: str, rows: int, rounds: int, say: Say, with_peers: bool) -> Measured:
    """Measure one scenario; with the day, and how long it took."""
    began = time.monotonic()
    figures = SCENARIOS[name].measure(rows, rounds, say, with_peers)
    return {"figures": figures, "rows": rows, "date": time.strftime("%Y-%m-%d"), "took": time.monotonic() - began}
