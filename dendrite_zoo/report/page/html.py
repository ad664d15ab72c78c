"""The page itself: words, tables and charts of runs in one file of HTML."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dendrite_zoo
from dendrite_zoo._core.files import write_atomically
from dendrite_zoo.functional import summarize
from dendrite_zoo.records import ResultRecord, merge_seeds
from dendrite_zoo.report.page.charts import CONFIG, Columns
from dendrite_zoo.report.page.figure import Figure, short, task_names
from dendrite_zoo.report.page.matrix import matrix_figures
from dendrite_zoo.report.page.measured import curve_figures, sparsity_figures, task_figures
from dendrite_zoo.report.page.run import Run
from dendrite_zoo.report.page.subnetworks import subnetwork_figures
from dendrite_zoo.report.tables import decimal, plain_name, result_rows

__all__ = ["page_html", "write_page"]

MOST_RUNS, MOST_ITEMS, MAX_ITEM = 24, 300, 500
PARTS = {
    matrix_figures: "No accuracy matrix, and with it no forgetting: `ForgettingLogger` writes one when a fit ends, of "
    "tasks that are learned one after another.",
    task_figures: "",
    subnetwork_figures: "No subnetworks: `SubnetworkLogger` records which units are active for which task.",
    sparsity_figures: "No sparsity of layers: `SparsityLogger` records it at each validation.",
    curve_figures: "No curves over training: `SuccessLogger` records the success of a policy in its environments.",
}
"""What makes figures, and what a run says that has none."""
NO_RECORD = (
    "No result record: `RunRecorder` writes it when a fit has ended and all tasks were measured after the last one."
)
DEFINITIONS = {
    "average_accuracy": "mean over the tasks j of R[T, j]",
    "forgetting": "mean over j < T of (max over l from j to T − 1 of R[l, j]) − R[T, j] (Chaudhry et al. 2018)",
    "backward_transfer": "mean over j < T of R[T, j] − R[j, j] (Lopez-Paz and Ranzato 2017)",
    "forward_transfer": "mean over j > 1 of R[j − 1, j] − b[j] (Lopez-Paz and Ranzato 2017)",
    "learning_accuracy": "mean over the tasks j of R[j, j] (Riemer et al. 2019)",
}
CONTEXTS = {
    "inferred": "the task inferred from each input",
    "given": "the task given",
    "constant": "one constant context",
    "none": "without a context",
}


class Value(NamedTuple):
    """A number of a run, by its definition.

    Args:
        name: of the number.
        value: as it is printed.
        note: what it is a mean of, or why it is undefined.
        definition: how it is computed.
        exact: all its digits.
    """

    name: str
    value: str
    note: str
    definition: str
    exact: float | None = None


def write_page(runs: Sequence[Run], path: str | Path) -> Path:
    """Write what `page_html` gives; the file appears whole or not at all.

    Args:
        runs: as `read_runs` gives them.
        path: such as ``run/report.html``; missing folders are made.

    Raises:
        ImportError: vl-convert is missing.
        ValueError: there are no runs, or what one recorded does not belong together.
    """
    return write_atomically(path, page_html(runs))


def page_html(runs: Sequence[Run]) -> str:
    """One page of HTML that shows runs, with all it needs in it: nothing is fetched from a network.

    For each run: its metrics by their definitions, the accuracy matrix, forgetting over tasks, which units win for
    which task, sparsity by layer, curves over training, and how it was made. What a run has not recorded is
    left out, and the page says what would record it. A table stands behind each chart.

    Args:
        runs: as `read_runs` gives them; above those of several stands a table. At most 24 are drawn.

    Raises:
        ImportError: vl-convert is missing.
        ValueError: there are no runs, or what one recorded does not belong together.
    """
    import jinja2

    if not runs:
        raise ValueError("Expected a run at least, but got none.")
    library = _javascript()
    loader = jinja2.PackageLoader("dendrite_zoo.report.page")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    sources: list[Columns] = []
    sections = [_section(number, run, sources) for number, run in enumerate(runs[:MOST_RUNS])]
    records = [run.record for run in runs if run.record is not None]
    page = {
        "title": _title(runs, records),
        "version": dendrite_zoo.__version__,
        "comparison": _comparison(records) if len(records) > 1 else {},
        "not_drawn": len(runs) - len(sections),
        "sections": sections,
    }
    scripts = {"sources": _json(sources), "config": _json(CONFIG), "library": library}
    return environment.get_template("page.html.j2").render(page, **scripts)


def _title(runs: Sequence[Run], records: Sequence[ResultRecord]) -> str:
    if len(runs) == 1:
        return short(runs[0].name)
    benchmarks = {record.benchmark for record in records}
    return f"{len(runs)} runs" + (f" of {short(*benchmarks)}" if len(benchmarks) == 1 else "")


@functools.cache
def _javascript() -> str:
    """Vega-Lite and what it needs, as one script that may stand within HTML; putting it together takes seconds."""
    try:
        import vl_convert
    except ImportError as error:
        raise ImportError("A page needs the [report] extra: pip install 'dendrite-zoo[report]'") from error
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _json(value: Any) -> str:
    """JSON that may stand within a script of HTML."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", r"\u003c")


def _section(number: int, run: Run, sources: list[Columns]) -> dict[str, Any]:
    parts = {part: part(run) for part in PARTS}
    figures = [figure for of_part in parts.values() for figure in of_part]
    missing = [NO_RECORD] * (run.record is None) + [PARTS[part] for part, found in parts.items() if not found]
    return {
        "id": f"run-{number}",
        "name": short(run.name),
        "about": _about(run),
        "values": [*_of_record(run.record), *_of_matrices(run)],
        "tasks": _choices(run, figures),
        "layers": next((list(enumerate(figure.layers)) for figure in figures if figure.layers), []),
        "figures": [_drawn(figure, sources) for figure in figures],
        "made": list(_made(run.record)),
        "has_matrix": bool(run.matrices),
        "recipe": _flat({"model": run.record.model, "config": run.record.config}) if run.record else [],
        "config": run.config,
        "missing": list(filter(None, missing)),
    }


def _choices(run: Run, figures: Sequence[Figure]) -> list[tuple[int, str]]:
    """The tasks that one can choose, with their names."""
    tasks = {task for figure in figures if figure.chooses for task in figure.data.get("t", ()) if task >= 0}
    names = task_names(run, 1 + max(tasks, default=-1))
    return [(task, names[task]) for task in sorted(tasks)]


def _drawn(figure: Figure, sources: list[Columns]) -> dict[str, Any]:
    """A figure as the template takes it; data that several charts share stand once in the page."""
    number = next((n for n, source in enumerate(sources) if source is figure.data), len(sources))
    sources += [figure.data] * (number == len(sources))
    width = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    spec = {**figure.spec, **width, "description": figure.alt}
    return {**vars(figure), "chart": _json({"spec": spec, "source": number, "said": figure.said})}


def _about(run: Run) -> str:
    if run.record is None:
        return "This run has no result record: it has not ended, or was not measured to its end."
    record = run.record
    tasks = f"{record.num_tasks} task" + "s" * (record.num_tasks > 1)
    return (
        f"{short(record.benchmark)}: {tasks}, {CONTEXTS[record.context_at_test]}. Method: {record.method[:MAX_ITEM]}."
    )


def _of_record(record: ResultRecord | None) -> Iterator[Value]:
    if record is None:
        return
    metric, std, more = short(record.more.get("metric") or "accuracy"), record.average_accuracy_std, record.more
    seeds = f"over {len(record.per_seed)} seeds, ± standard deviation" if std is not None else _seeds(record)
    spread = "" if std is None else f" ± {decimal(std, 3)}"
    over = f"{metric} over all tasks after the last was learned"
    known = decimal(record.average_accuracy, 3) + spread, seeds, f"mean {over}, {CONTEXTS[record.context_at_test]}"
    yield Value(f"mean {metric}", *known, record.average_accuracy)
    if interval := more.get("interval"):
        low, high = (decimal(end, 3) for end in interval)
        yield Value("95 % interval", f"{low} to {high}", "", "bootstrap over goals and seeds")
    if (last := more.get("success_at_last_step")) is not None:
        note = "share of goals that are reached at an episode's last step"
        yield Value("at the last step", decimal(last, 3), "", note, last)
    for context, accuracy in (record.accuracy_by_context or {}).items():
        if context == "context":
            yield Value("right contexts", decimal(accuracy, 3), "", "how often the inferred task is right", accuracy)
        else:
            name = f"{metric}, {CONTEXTS.get(context, short(context))}"
            yield Value(name, decimal(accuracy, 3), "", f"mean {over}", accuracy)


def _seeds(record: ResultRecord) -> str:
    return f"seed {record.seeds[0]}" if len(record.seeds) == 1 else f"{len(record.seeds)} seeds" if record.seeds else ""


def _of_matrices(run: Run) -> Iterator[Value]:
    for matrix in run.matrices:
        mode = matrix.get("mode", "max")
        of = f" of {short(matrix['metric'])}" if len(run.matrices) > 1 else ""
        less = "; a rise where less is better" if mode == "min" else ""
        for name, metric in summarize(matrix["R"], matrix.get("baseline"), mode).items():
            note = metric.reason or f"over {metric.tasks} task{'s' * (metric.tasks > 1)}"
            definition = DEFINITIONS[name] + less * (name in ("forgetting", "backward_transfer", "forward_transfer"))
            value = decimal(metric.value, 3), note, definition, None if metric.reason else metric.value
            yield Value(plain_name(name, matrix.get("metric", "accuracy"), mode) + of, *value)


def _made(record: ResultRecord | None) -> Iterator[tuple[str, str]]:
    """How a run was made, as names and texts; what is not known is left out."""
    if record is None:
        return
    more = {name: record.more.get(name) for name in ("updates", "env_steps", "num_goals", "max_steps")}
    known: dict[str, Any] = {
        "command": record.command,
        "description": record.description,
        "seeds": ", ".join(map(str, record.seeds)),
        "seeds of the stream": ", ".join(map(str, record.stream_seeds or ())),
        "measured on": None if record.val_fraction is None else f"{record.val_fraction:.0%} of the training data",
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "hardware": record.hardware,
        "training time": None if record.wall_time_s is None else _duration(record.wall_time_s),
        "parameters": None if record.parameters is None else f"{record.parameters:,}",
        **{name.replace("_", " "): None if value is None else f"{value:,.12g}" for name, value in more.items()},
        "recipe's hash": record.config_hash,
        "source": record.source,
        "reference": record.reference,
    }
    yield from ((name, text) for name, text in known.items() if text)


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _flat(value: Any, at: str = "") -> list[tuple[str, str]]:
    """Nested mappings as names and texts, at most so many and so long."""
    if isinstance(value, Mapping):
        items = [pair for key, item in value.items() for pair in _flat(item, f"{at}.{key}".lstrip("."))]
        return items[:MOST_ITEMS]
    text = value if isinstance(value, str) else json.dumps(value)
    return [] if value is None else [(at[:MAX_ITEM], text if len(text) <= MAX_ITEM else f"{text[:MAX_ITEM]}…")]


def _comparison(records: Sequence[ResultRecord]) -> dict[str, list[list[str]]]:
    """The rows of a table of each benchmark; seeds of one recipe are merged."""
    merged = merge_seeds(records)
    names = dict.fromkeys(record.benchmark for record in merged)
    return {short(name): result_rows([record for record in merged if record.benchmark == name]) for name in names}
