"""What tables and figures have in common: where records lie, and how they are shown."""

from collections.abc import Sequence
from pathlib import Path

from dendrite_zoo.records import ResultRecord

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def seeds(record: ResultRecord) -> str:
    count = len(record.seeds)
    return f"{count} seed{'s' * (count > 1)}" if count else "no seed"


def mean(record: ResultRecord) -> str:
    spread = record.average_accuracy_std
    return f"{record.average_accuracy:.3f}" + ("" if spread is None else f" ± {spread:.3f}")
