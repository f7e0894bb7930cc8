# SPDX-License-Identifier: Apache-2.0
"""What is measured: who pulls what, at which latency, how often."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.runs import Bank, Figures, Puller, median
from intergiro_provider.exceptions import IntergiroValueError

OURS_1 = Puller("ours, 1 window", "ours")
OURS_4 = Puller("ours, 4 windows (the default)", "ours", windows=4)
OURS_16 = Puller("ours, 16 windows", "ours", windows=16)
OURS_32 = Puller("ours, 32 windows", "ours", windows=32)
PARQUET = Puller("ours, 4 windows, Parquet", "ours", windows=4, file_format="parquet")
BYTES = Puller("requests, bodies not decoded", "bare_requests")
JSON = Puller("requests, json.loads", "requests_json")
HTTP_HOOK = Puller("HttpHook in a loop", "http_hook")
HTTP_OPERATOR = Puller("HttpOperator, pagination_function", "http_operator")
DLT_CLIENT = Puller("dlt RESTClient in a loop", "dlt_client", "dlt")
DLT = Puller("dlt rest_api pipeline", "dlt_rest_api", "dlt")
SINGER = Puller("singer-sdk tap", "singer_tap", "singer")
AIRBYTE = Puller("airbyte-cdk low-code source", "airbyte_low_code", "airbyte")
SOCKETS = Puller("16 bare sockets: what the sandbox can do", "sockets", windows=16)

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
class Growth:
    """Our peak memory for few rows and for a hundred times as many."""

    title: str = "many rows"

    def measure(self, rows: int, rounds: int, say: Say, with_peers: bool) -> Measured:
        """By title, then `few` and `many`."""
        found: Measured = {}
        for name, count in (("few", rows // 10), ("many", rows * 10)):
            with Bank(count) as bank:
                for puller in (OURS_4, PARQUET):
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


Scenario = SideBySide | Growth | Small

SCENARIOS: Mapping[str, Scenario] = {
    "parse": Small("DAG files", "parsing"),
    "auth": Small("authentication", "authentication"),
    "pieces": Small("one page", "pieces"),
    "0ms": SideBySide(
        "no latency", 0.0, (OURS_4, BYTES, JSON, HTTP_OPERATOR, HTTP_HOOK, OURS_1, DLT_CLIENT), (DLT, SINGER, AIRBYTE)
    ),
    "20ms": SideBySide("20 ms", 0.02, (OURS_16, SOCKETS), (OURS_4, BYTES, JSON, *PEERS)),
    "100ms": SideBySide("100 ms", 0.1, (OURS_32,), (BYTES,)),
    "memory": Growth(),
}


def writes_parquet() -> bool:
    """Whether this version can."""
    from intergiro_provider.pull.files import get_format

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
