"""A figure of a page: a chart with its data, words for who does not see it, and a table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dendrite_zoo.report.page import charts
from dendrite_zoo.report.page.charts import Columns, Spec
from dendrite_zoo.report.page.run import Run
from dendrite_zoo.report.tables import decimal

MOST_DOTS, MAX_NAME = 60, 60


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart with all that belongs to it.

    Args:
        title: in a few words.
        alt: what it shows, in sentences with numbers.
        spec: the chart.
        data: the columns that it is drawn from.
        head: of the table; empty where another figure has the table.
        rows: of the table; numbers as they are printed.
        caption: how to read it.
        chooses: whether pointing at a task in it chooses that task.
        layers: names of the layers that the reader can choose from.
        said: by layer, the sentence on each task that was measured.
    """

    title: str
    alt: str
    spec: Spec
    data: Columns
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    caption: str = ""
    chooses: bool = False
    layers: Sequence[str] = ()
    said: Sequence[Mapping[int, str]] = ()


def of_series(
    title: str,
    alt: str,
    axis: str,
    names: Sequence[str],
    series: Mapping[str, Iterable[Any]],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    zero: bool = False,
) -> Figure:
    """Values of things with names, a dot each; of many a line over their number."""
    points = [(n, s, float(v)) for s, values in series.items() for n, v in enumerate(values)]
    data = [
        {"n": n, "label": names[n], "s": s, "v": v, "said": decimal(v, 4)} for n, s, v in points if math.isfinite(v)
    ]
    few = len(names) <= MOST_DOTS
    spec = charts.dots(names, list(series), axis, zero) if few else charts.lines(head[0], axis, list(series), zero)
    return Figure(title=title, alt=alt, spec=spec, data=charts.columns(data), head=head, rows=rows, caption=caption)


def task_names(run: Run, count: int) -> list[str]:
    """A name for each task, no two alike: those of the record, else of the curves, else numbers."""
    recorded = run.record.more.get("tasks") if run.record else None
    known = [short(name) for name in recorded or curve_names(run)]
    return known if len(known) == len(set(known)) == count else [str(task) for task in range(count)]


def curve_names(run: Run) -> list[str]:
    """The tasks that the curves over training are of, as they stand there."""
    return list(dict.fromkeys(name for _, values in run.points for name in values if name != "mean"))


def part(shown: int, of: int, what: str) -> str:
    """A sentence where not all of something is shown."""
    return "" if shown >= of else f" {shown} of {of} {what} are shown, evenly spaced."


def exact(v: float) -> float | None:
    """A number as JSON can say it; None for NaN and infinity."""
    return v if math.isfinite(v) else None


def short(text: Any) -> str:
    """A name on one line that fits beside a chart."""
    line = " ".join(str(text).split())
    return line if len(line) <= MAX_NAME else f"{line[: MAX_NAME - 1]}…"
