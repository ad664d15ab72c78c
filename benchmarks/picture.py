"""Draws what the benchmarks found beside what was aimed at: benchmarks/results/benchmarks.png.

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
    """A row for each ratio: the value as a dot, the target as a mark, what lies between them as a line."""
    lines = [json.loads(line) for path in sorted(RESULTS.glob("*.json")) for line in path.read_text().splitlines()]
    ratios = [line for line in lines if "target" in line and " / " in line["name"] and line["value"] > 0]
    lines = ratios[::-1]
    figure, axes = plt.subplots(figsize=(10, 0.42 * len(lines) + 1.4), layout="constrained")
    for row, line in enumerate(lines):
        sign, target = line["target"].split()[0], float(line["target"].split()[1])
        colour = "#3a7d44" if line["met"] else "#c1440e"
        axes.plot([target, line["value"]], [row, row], color=colour, linewidth=1.5)
        axes.plot(line["value"], row, "o", color=colour)
        axes.plot(target, row, "|", color="black", markersize=14)
        words = f"{line['value']:.3g} (target: {'at most' if sign == '<=' else 'at least'} {target:g})"
        axes.text(1.01, row, words, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(lines)), [f"{line['benchmark']}: {line['name']}" for line in lines], fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("ratio of the two times, median over pairs measured in turn (logarithmic)")
    words = "What the benchmarks found (dot) and what was aimed at (mark); red: missed"
    figure.suptitle(words, x=0.01, ha="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    figure.savefig(RESULTS / "benchmarks.png", dpi=150)


if __name__ == "__main__":
    main()
