"""What a page shows of an accuracy matrix."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dendrite_zoo.functional import forgetting_per_task, learned_part, summarize
from dendrite_zoo.functional.accuracy_matrix import as_values
from dendrite_zoo.report.page import charts
from dendrite_zoo.report.page.figure import Figure, exact, of_series, part, short, task_names
from dendrite_zoo.report.page.run import Run
from dendrite_zoo.report.tables import decimal, plain_name, shown_rows, spread

MOST_TASKS, MOST_ROWS, MOST_POINTS = 100, 50, 200
OVER_TASKS = ("average_accuracy", "forgetting")


class Matrix(NamedTuple):
    """An accuracy matrix with what is known of it: ``R (T, T)``, ``untrained (T,)``, NaN where not measured."""

    R: Tensor
    untrained: Tensor
    metric: str
    mode: Any
    first_task: int
    names: list[str]

    @classmethod
    def of(cls, matrix: Mapping[str, Any], run: Run) -> "Matrix":
        """Of what `dendrite_zoo.report.read_matrix` gives."""
        R = as_values(matrix["R"]).double()
        untrained = as_values(matrix.get("baseline", R.new_full((len(R),), math.nan))).double()
        known = short(matrix.get("metric", "accuracy")), matrix.get("mode", "max"), matrix.get("first_task", 0)
        return cls(R, untrained, *known, task_names(run, len(R)))

    def say(self) -> str:
        """Average and forgetting at the end, in words."""
        values = summarize(self.R, self.untrained, self.mode)
        return ", ".join(
            f"{plain_name(name, self.metric, self.mode)} {decimal(values[name].value, 3)}" for name in OVER_TASKS
        )


def matrix_figures(run: Run) -> list[Figure]:
    """The matrix, forgetting over tasks, each task, and one of them over time; of each matrix of the run."""
    matrices = [Matrix.of(matrix, run) for matrix in run.matrices]
    return [figure for one in matrices for figure in (*_heat_map(one), *_over_tasks(one), _each_task(one))]


def _heat_map(of: Matrix) -> list[Figure]:
    shown = spread(range(len(of.R)), MOST_TASKS)
    rows = spread(shown_rows(of.R, MOST_ROWS), MOST_ROWS) or [0]
    labels = ["before" if i == of.first_task - 1 else of.names[i] for i in rows]
    cells = of.R[rows]
    if not of.untrained.isnan().all():
        cells, rows, labels = torch.cat([of.untrained[None], cells]), [-1, *rows], ["untrained", *labels]
    places = [(a, i, j, float(cells[a, j])) for a, i in enumerate(rows) for j in shown]
    data = charts.columns(
        [
            {"a": a, "t": j, "v": exact(v), "said": decimal(v, 4), "short": decimal(v), "early": j > i}
            for a, i, j, v in places
        ]
    )
    low, high = _scale([v for *_, v in places if math.isfinite(v)], of.mode)
    rest = part(len(shown), len(of.R), "tasks")
    if len(rows) < (~of.R.isnan()).any(1).sum():
        rest += f" Of the rows, up to {MOST_ROWS} in which more than one task was measured are shown."
    columns = [of.names[j] for j in shown]
    matrix = Figure(
        title=f"{of.metric} on each task after each task was learned",
        alt=f"Heat map of {of.metric} on each of {len(of.R)} tasks after each was learned: {of.say()}.",
        spec=charts.heat_map(of.names, labels, low, high, of.metric, of.mode),
        data=data,
        head=["after task", *columns],
        rows=[[label, *(decimal(v, 4) for v in row[shown])] for label, row in zip(labels, cells, strict=True)],
        caption="Point at a cell for its value. Faint: tasks that were not learned by then. A dot or an empty cell: "
        f"not measured.{rest}",
        chooses=True,
    )
    one = Figure(
        title="One task over time",
        alt=f"Line of {of.metric} on the chosen task after each task was learned. The table of the matrix has it.",
        spec=charts.one_task(of.names, labels, of.metric),
        data=data,
        caption="Choose the task, or point at its column in the matrix.",
    )
    return [matrix, one]


def _scale(values: list[float], mode: str) -> tuple[float, float]:
    """The ends of the colours: 0 and 1 for shares."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return (0.0, 1.0) if mode == "max" and low >= 0 and high <= 1 else (low, high)


def _over_tasks(of: Matrix) -> list[Figure]:
    """Average and forgetting after each task after which all tasks were measured that have been before."""
    measured = ~of.R.isnan()
    so_far = [measured[: i + 1, : i + 1] for i in range(len(of.R))]
    ends = [i for i, known in enumerate(so_far) if known[-1].any() and known[-1].equal(known.any(0))]
    if len(ends) < 2:
        return []
    after = {i: summarize(of.R[: i + 1, : i + 1], mode=of.mode) for i in spread(ends, MOST_POINTS)}
    series = {name: plain_name(name, of.metric, of.mode) for name in OVER_TASKS}
    points = [(i, word, values[name].value) for name, word in series.items() for i, values in after.items()]
    data = [
        {"n": i, "label": of.names[i], "s": word, "v": v, "said": decimal(v, 4)}
        for i, word, v in points
        if exact(v) == v
    ]
    partial = " A task after which some of the earlier ones were not measured has no point." * (len(ends) < len(of.R))
    figure = Figure(
        title="Forgetting over tasks",
        alt=f"Lines of the average of {of.metric} over the tasks so far, and of forgetting: at the end {of.say()}.",
        spec=charts.lines("after task", of.metric, list(series.values())),
        data=charts.columns(data),
        head=["after task", *series.values()],
        rows=[[of.names[i], *(decimal(values[name].value, 4) for name in series)] for i, values in after.items()],
        caption=f"Each point is over the tasks learned by then.{partial}",
    )
    return [figure]


def _each_task(of: Matrix) -> Figure:
    R = learned_part(of.R)
    lost, now = forgetting_per_task(R, of.mode), R[-1]
    best = now + lost if of.mode == "max" else now - lost
    values = {"when learned": R.diagonal(), "best": best, "now": now, "forgotten": lost}
    rows = [[of.names[j], *(decimal(one[j], 4) for one in values.values())] for j in range(len(R))]
    most = int(lost.nan_to_num(nan=-math.inf).argmax())
    worst = "" if lost.isnan().all() else f" Task {of.names[most]} lost most, {decimal(lost[most], 4)}."
    alt = f"{of.metric} on each of {len(R)} tasks, when it was learned and now.{worst}"
    series = {name: values[name] for name in ("when learned", "now")}
    names = of.names[: len(R)]
    return of_series("Each task when learned, and now", alt, of.metric, names, series, ["task", *values], rows)
