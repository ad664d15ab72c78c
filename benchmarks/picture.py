"""Draws what the benchmarks found against what was aimed at: benchmarks/results/benchmarks.png.

python benchmarks/picture.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """One bar for each target: how much of it is used up."""
    lines = [json.loads(line) for path in sorted(RESULTS.glob("*.json")) for line in path.read_text().splitlines()]
    lines = [line for line in lines if "target" in line][::-1]
    limits = [float(line["target"].split()[1]) for line in lines]
    less = [line["target"].startswith("<=") for line in lines]
    used = [
        max(line["value"], 0) / limit if low else limit / line["value"]
        for line, limit, low in zip(lines, limits, less, strict=True)
    ]
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(lines) + 1), layout="constrained")
    axes.barh(range(len(lines)), used, color=["#3a7d44" if line["met"] else "#c1440e" for line in lines])
    axes.set_yticks(range(len(lines)), [f"{line['benchmark']}: {line['name']}" for line in lines], fontsize=8)
    for place, (share, line) in enumerate(zip(used, lines, strict=True)):
        axes.text(share, place, f" {line['value']:g}  (target {line['target']})", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlim(0, max([1.0, *used]) * 1.45)
    axes.set_xlabel("share of the target that is used up; left of the line it is met")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "benchmarks.png", dpi=150)


if __name__ == "__main__":
    main()
