# SPDX-License-Identifier: Apache-2.0
"""The benchmarks with small lists and without other tools: the counts are right, and a failed run is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import runs, scenarios
from benchmarks.__main__ import main
from benchmarks.goals import GOALS, judged
from benchmarks.page import written
from benchmarks.runs import Bank, Puller
from intergiro_provider.sandbox import Sandbox

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Write the files of a run to a temporary directory."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("benchmarks")
        patch.setattr("benchmarks.environments.BUILD", folder)
        patch.setattr("benchmarks.runs.BUILD", folder)
        yield


def test_a_scenario_becomes_figures_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    few = scenarios.SideBySide("few", 0.0, (scenarios.OURS, scenarios.BYTES, scenarios.JSON))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenarios, "SCENARIOS", {"0ms": few})
        main(["--only", "0ms", "--rows", "3000", "--rounds", "1", "--without-peers",
              "--figures", str(figures), "--docs", str(tmp_path)])  # fmt: skip
    found = json.loads(figures.read_text())["0ms"]["figures"]
    assert {each["rows"] for each in found.values()} == {3000}
    assert found[scenarios.BYTES.title]["connections"] == 1
    assert 1 <= found[scenarios.OURS.title]["connections"] <= 16
    assert found[scenarios.BYTES.title]["requests"] == 30 <= found[scenarios.OURS.title]["requests"] < 40
    assert all(each["cpu"] > 0 and each["wall"] > 0 and each["peak_mb"] > 10 for each in found.values())
    page = (tmp_path / "benchmarks.md").read_text()
    assert page.count("not measured") == len(GOALS) - 1
    assert scenarios.OURS.title in page
    assert "not measured" in capsys.readouterr().out


def test_rows_that_are_missing_are_no_figure() -> None:
    with Bank(300) as bank:
        bank.rows = 301
        with pytest.raises(RuntimeError, match="wrote 300 rows, 300 of them distinct, not 301"):
            bank.measure(scenarios.BYTES)
        with pytest.raises(RuntimeError, match="No such file"):
            bank.measure(Puller("nobody", "nobody"))


def test_records_are_counted_in_every_shape(tmp_path: Path) -> None:
    with Sandbox(transactions=4) as bank:
        a, b, c, d = bank.records()
    message = b'{"type":"RECORD","stream":"transactions","record":' + c + b"}"
    (tmp_path / "rows.jsonl").write_bytes(
        b'{"data":[' + a + b"," + b + b'],"has_more":true}\n' + message + b'\n{"type":"STATE","value":{}}\n' + d + b"\n"
    )
    assert [*runs._ids(tmp_path)] == [json.loads(record)["id"] for record in (a, b, c, d)]


def test_goals_are_judged_by_their_bounds() -> None:
    def result(ours: float, theirs: float) -> dict[str, object]:
        return {"auth": {"figures": {"authentication": ours, "request": theirs}}}

    def verdict(results: dict[str, object]) -> list[bool]:
        return [goal.met(value) for goal, value in judged(results) if value is not None]

    assert verdict(result(4, 100)) == [True]
    assert verdict(result(6, 100)) == [False]
    assert verdict({}) == []
    assert "**missed**" in written({"auth": {**result(6, 100)["auth"], "rows": 1, "date": "2026-01-01"}})  # type: ignore[dict-item]
