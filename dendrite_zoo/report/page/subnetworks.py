"""What a page shows of subnetworks: which units win for which task, and what tasks share."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dendrite_zoo._core.annotations import fits
from dendrite_zoo.functional import unit_order
from dendrite_zoo.functional.accuracy_matrix import as_values
from dendrite_zoo.report.page import charts
from dendrite_zoo.report.page.figure import Figure, exact, part, short, task_names
from dendrite_zoo.report.page.run import Run
from dendrite_zoo.report.tables import MISSING, decimal, spread

MOST_TASKS, MOST_UNITS, MOST_LAYERS = 50, 64, 8


class Layer:
    """A layer of a record of subnetworks, see `dendrite_zoo.report.subnetwork_record`.

    Args:
        name: of the layer.
        known: what the record holds.

    Raises:
        ValueError: its numbers are not those of tasks by units, and of tasks by tasks.
    """

    def __init__(self, name: str, known: Mapping[str, Any]) -> None:
        self.name, self.units, self.by_chance = short(name), known["units"], known["active_share"]
        self.rates, self.overlap = as_values(known["win_rates"]), as_values(known["overlap"])
        tasks = len(self.rates)
        if self.rates.ndim != 2 or 0 in self.rates.shape or self.overlap.shape != (tasks, tasks):
            shapes = f"{list(self.rates.shape)} and {list(self.overlap.shape)}"
            raise ValueError(f"Expected win rates (T, U) and overlaps (T, T) of layer {self.name!r}, but got {shapes}.")
        self.order = spread(unit_order(self.rates).tolist(), MOST_UNITS)
        places = self.rates.shape[1]
        shown = known["shown_units"] if fits(known.get("shown_units"), list[int]) else []
        self.numbers: list[int] = shown if len(shown) == places else list(range(places))

    def cells(self, tasks: Sequence[int]) -> list[dict[str, Any]]:
        """A cell for each task and unit: the share of the task's inputs that it is active for, and its number."""
        return [
            {"t": t, "u": u, "v": exact(v), "said": decimal(v, 4), "unit": self.numbers[place]}
            for t in tasks
            for u, place in enumerate(self.order)
            for v in [float(self.rates[t, place])]
        ]

    def pairs(self, tasks: Sequence[int]) -> list[dict[str, Any]]:
        """What each two tasks share."""
        return [
            {"t": t, "o": o, "v": v, "said": decimal(v, 4), "chance": self.by_chance}
            for t in tasks
            for o in tasks
            if math.isfinite(v := float(self.overlap[t, o]))
        ]

    def say(self, task: int, names: Sequence[str]) -> str:
        """A sentence on the subnetwork of a task."""
        rates, others = self.rates[task], self.overlap[task].clone()
        if rates.isnan().all():
            return f"Task {names[task]} was not measured."
        active = (
            f"{int((rates >= 0.5).sum())} of {len(rates)} recorded units are active for at least half of its inputs"
        )
        others[task] = math.nan
        most = int(others.nan_to_num(nan=-math.inf).argmax())
        shares = "" if others.isnan().all() else f"; it shares most with task {names[most]}, {decimal(others[most], 4)}"
        return f"Task {names[task]}: {active}{shares}."


def subnetwork_figures(run: Run) -> list[Figure]:
    """The units that win for each task, and the overlap of the chosen task with the others.

    Raises:
        ValueError: the record's numbers do not belong together.
    """
    known = (run.subnetworks or {}).get("layers") or {}
    layers = [Layer(name, known[name]) for name in spread(list(known), MOST_LAYERS)]
    if not layers:
        return []
    count = max(len(layer.rates) for layer in layers)
    names, shown = task_names(run, count), spread(range(count), MOST_TASKS)
    rest = part(len(shown), count, "tasks") + part(len(layers), len(known), "layers")
    of_layers = [(layer, [t for t in shown if t < len(layer.rates)]) for layer in layers]
    return [_winners(of_layers, names, shown, rest), _overlaps(of_layers, names, shown)]


def _winners(
    layers: Sequence[tuple[Layer, list[int]]], names: Sequence[str], shown: Sequence[int], rest: str
) -> Figure:
    said = [{t: layer.say(t, names) for t in tasks} for layer, tasks in layers]
    sizes = ", ".join(f"{layer.name} with {layer.units} units" for layer, _ in layers)
    return Figure(
        title="Which units win for which task",
        alt=f"Heat map of the units that are active for each of {len(names)} tasks, of the layers {sizes}.",
        spec=charts.winners(names, len(shown)),
        data=charts.columns(
            [{"l": n, **cell} for n, (layer, tasks) in enumerate(layers) for cell in layer.cells(tasks)]
        ),
        head=["layer", "task", "its subnetwork"],
        rows=[
            [layer.name, names[t], words[t]] for (layer, tasks), words in zip(layers, said, strict=True) for t in tasks
        ],
        caption="Bright: the unit is active for most inputs of the task. Units are ordered by the task that they are "
        f"most active for; up to {MOST_UNITS} of a layer are shown. Choose a task, or point at its row.{rest}",
        chooses=True,
        layers=[layer.name for layer, _ in layers],
        said=said,
    )


def _overlaps(layers: Sequence[tuple[Layer, list[int]]], names: Sequence[str], shown: Sequence[int]) -> Figure:
    return Figure(
        title="What the task shares with the others",
        alt="Bars of the share of active units that the chosen task has in common with each task; the dashed line is "
        "what tasks share by chance.",
        spec=charts.overlaps(names, len(shown)),
        data=charts.columns(
            [{"l": n, **pair} for n, (layer, tasks) in enumerate(layers) for pair in layer.pairs(tasks)]
        ),
        head=["layer", "task", *(names[t] for t in shown)],
        rows=[
            [layer.name, names[t], *(decimal(layer.overlap[t, o], 4) if o in tasks else MISSING for o in shown)]
            for layer, tasks in layers
            for t in tasks
        ],
        caption="The dashed line is what tasks share by chance. A task shares all with itself where each of its inputs "
        "activates the same units.",
    )
