"""What a page shows of a run beside its matrix: each task, sparsity, and curves over training."""

import math
from collections.abc import Sequence

from dendrite_zoo.report.matrix_record import as_doubles
from dendrite_zoo.report.page import charts
from dendrite_zoo.report.page.figure import Figure, curve_names, of_series, part, short, task_names
from dendrite_zoo.report.page.run import Run
from dendrite_zoo.report.tables import MISSING, SPARSITY, decimal, spread

MOST_CURVES, MOST_POINTS = 60, 200


def task_figures(run: Run) -> list[Figure]:
    """How a run without a matrix fares on each task."""
    record = run.record
    if run.matrices or record is None or not record.task_accuracies:
        return []
    names, metric = task_names(run, record.num_tasks), short(record.more.get("metric") or "accuracy")
    series: dict[str, Sequence[float]] = {metric: record.task_accuracies}
    if len(at_end := record.more.get("task_success_at_end") or ()) == len(names):
        series[f"{metric} at the last step"] = at_end
    head, rows = (
        ["task", *series],
        [[name, *(decimal(v[n], 4) for v in series.values())] for n, name in enumerate(names)],
    )
    if len(steps := record.more.get("steps_to_success") or ()) == len(names):
        head.append("steps to success")
        rows = [[*row, MISSING if x is None else f"{x:.0f}"] for row, x in zip(rows, steps, strict=True)]
    alt = f"{metric} of each of {len(names)} tasks: the mean is {decimal(record.average_accuracy, 4)}."
    return [of_series(f"{metric} of each task", alt, metric, names, series, head, rows)]


def sparsity_figures(run: Run) -> list[Figure]:
    """Sparsity by layer."""
    every = {short(layer): {name: values.get(name) for name in SPARSITY} for layer, values in run.sparsity.items()}
    layers = {layer: values for layer, values in every.items() if set(values.values()) != {None}}
    if not layers:
        return []
    known = {word: [values[name] for values in layers.values()] for name, word in SPARSITY.items()}
    series = {word: as_doubles(column) for word, column in known.items() if set(column) != {None}}
    rows = [[layer, *(decimal(values[n], 4) for values in series.values())] for n, layer in enumerate(layers)]
    means = ", ".join(f"{word} {decimal(column.nanmean())}" for word, column in series.items())
    alt = f"Sparsity of {len(layers)} layers; means over the layers that have it: {means}."
    caption = (
        "Zero activations and zero weights are shares. Dead units is the share of units that were never active. "
        "Duty-cycle entropy is in bits: 0 where each unit is always or never active, 1 where each is active half of "
        "the time."
    )
    return [
        of_series("Sparsity by layer", alt, "value", list(layers), series, ["layer", *series], rows, caption, zero=True)
    ]


def curve_figures(run: Run) -> list[Figure]:
    """Success, or accuracy, of each task while it was trained."""
    number = _numbers(run)
    if not number:
        return []
    names, points = sorted(number, key=lambda name: number[name]), spread(run.points, MOST_POINTS)
    shown, has_mean = spread(names, MOST_CURVES), any("mean" in values for _, values in run.points)
    data = [
        {"x": x, "t": number.get(name, -1), "v": values[name], "said": decimal(values[name], 4)}
        for name in [*shown, "mean"]
        for x, values in points
        if math.isfinite(values.get(name, math.nan))
    ]
    axis, columns = run.x.replace("_", " "), [*["mean"] * has_mean, *shown]
    rows = [[f"{x:.0f}", *(decimal(values.get(name, math.nan), 4) for name in columns)] for x, values in points]
    last = next((f" The mean ends at {decimal(p['mean'], 4)}." for _, p in reversed(run.points) if "mean" in p), "")
    rest = part(len(shown), len(names), "tasks") + part(len(points), len(run.points), "evaluations")
    figure = Figure(
        title=f"{run.measured.capitalize()} while it was trained",
        alt=f"Curves of the {run.measured} of {len(names)} tasks over {axis}.{last}",
        spec=charts.curves([short(name) for name in names], axis, run.measured),
        data=charts.columns(data),
        head=[axis, *map(short, columns)],
        rows=rows,
        caption=f"{'The thick line is the mean. ' * has_mean}The task that you choose, or point at, stands out.{rest}",
        chooses=True,
    )
    return [figure]


def _numbers(run: Run) -> dict[str, int]:
    """The number of each task of the curves: that of the record, where it knows them all."""
    series = curve_names(run)
    names = task_names(run, len(series))
    of_task = {name: names.index(short(name)) for name in series if short(name) in names}
    known = len(set(of_task.values())) == len(series)
    return of_task if known else {name: number for number, name in enumerate(series)}
