# SPDX-License-Identifier: Apache-2.0
"""Draws the chart; run with the interpreter of an environment that has matplotlib: FIGURES.json CHART.png."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

OURS, OTHERS = "#1f7a5c", "#b8c4cc"


def main(source: Path, target: Path) -> None:
    """Two panels: seconds at 20 ms, and CPU without latency."""
    results: dict[str, Any] = json.loads(source.read_text())
    panels = [
        ("20ms", "wall", "seconds at 20 ms of latency"),
        ("0ms", "cpu", "seconds of CPU, no latency"),
    ]
    there = [panel for panel in panels if panel[0] in results]
    if not there:
        return
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, len(there), figsize=(5.2 * len(there), 3.6), squeeze=False)
    for ax, (name, which, title) in zip(axes[0], there, strict=True):
        found = {
            puller.partition(" (")[0]: each[which]
            for puller, each in results[name]["figures"].items()
            if "sockets" not in puller
        }
        ordered = sorted(found.items(), key=lambda item: -item[1])
        bars = ax.barh(
            [puller for puller, _ in ordered],
            [value for _, value in ordered],
            color=[OURS if puller.startswith("ours") else OTHERS for puller, _ in ordered],
        )
        ax.bar_label(bars, fmt="%.1f", padding=3)
        ax.set_title(f"{results[name]['rows']:,} rows: {title}", loc="left", fontsize=10)
        ax.tick_params(length=0)
        ax.margins(x=0.12)
    figure.tight_layout()
    # No time and no version of the software inside, so that equal figures make equal files.
    figure.savefig(target, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
