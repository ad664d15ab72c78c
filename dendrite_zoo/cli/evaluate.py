"""``dendrite-zoo evaluate``: how well a model does what it has learned."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from dendrite_zoo.lightning_modules import evaluate_contexts
from dendrite_zoo.models import ActiveDendritePolicy, load
from dendrite_zoo.report import save_gif, write_record
from dendrite_zoo.rl import evaluate_policy, record_policy
from dendrite_zoo.streams import TaskStream, benchmark_stream

CLASSIFIER_OPTIONS, POLICY_OPTIONS = ("benchmark", "num_tasks", "data"), ("goals", "processes", "gif")


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("model", help="A zoo name, org/repo, org/repo@revision, or a folder.")
    add("--benchmark", help="Such as permuted-digits (default: what the model was trained on).")
    add("--num-tasks", type=int, help="How many tasks (default: those it has learned).")
    add("--seed", type=int, help="Seed of the stream (default: the one it learned), or of a policy's goals (0).")
    add("--data", help="A local folder to take the data from.")
    add("--json", dest="json_file", type=Path, help="Write the scores there, too.")
    add("--goals", type=int, help="Of a policy: test goals of each task, one episode each (default: 50).")
    add("--processes", type=int, help="Of a policy: worker processes; 0 for this one alone (default: 2).")
    add("--gif", type=Path, help="Of a policy: draw its skills at work into this file, too (it takes OpenGL).")


def run(model: str, json_file: Path | None, **options: Any) -> None:
    """Print a table of scores, and write them to a file where one is given."""
    loaded = load(model)
    policy = isinstance(loaded, ActiveDendritePolicy)
    kind, others = ("policy", CLASSIFIER_OPTIONS) if policy else ("classifier", POLICY_OPTIONS)
    given = {name: value for name, value in options.items() if value is not None}
    if wrong := ", ".join(f"--{name.replace('_', '-')}" for name in others if name in given):
        raise ValueError(f"Expected options for a {kind}, but got {wrong}. See dendrite-zoo evaluate --help")
    scores = (_policy if policy else _classifier)(model, loaded, **given)
    if json_file:
        write_record({"model": model, **scores}, json_file)


def _classifier(name: str, model: Any, **options: Any) -> dict[str, Any]:
    stream = _stream(name, model, **options)
    scores = evaluate_contexts(model, stream)
    table = Table("task", *scores, title=f"{name} on {stream.benchmark}: accuracy, context {', '.join(scores)}")
    for task in range(stream.num_tasks):
        table.add_row(str(task), *(f"{values[task]:.3f}" for values in scores.values()))
    table.add_section()
    table.add_row("mean", *(f"{sum(values) / len(values):.4f}" for values in scores.values()))
    Console().print(table)
    return {"benchmark": stream.benchmark, "seed": stream.seed, **scores}


def _stream(
    name: str,
    model: Any,
    *,
    benchmark: str | None = None,
    num_tasks: int | None = None,
    seed: int | None = None,
    data: str | None = None,
) -> TaskStream:
    """The tasks that a model has learned, but for what is given."""
    learned: dict[str, Any] = next((r for r in model.results or () if benchmark in (None, r.get("benchmark"))), {})
    benchmark = learned.get("benchmark", "") if benchmark is None else benchmark
    num_tasks = getattr(model, "num_tasks", 0) or None if num_tasks is None else num_tasks
    own_data = benchmark.endswith("-custom") and data is None
    if not benchmark or num_tasks is None or own_data:
        missing = "--benchmark" if not benchmark else "--num-tasks" if num_tasks is None else "--data"
        raise ValueError(f"Expected `{missing}`, because {name} does not say it. See dendrite-zoo evaluate --help")
    if seed is None:  # other permutations are other tasks
        seed = next(iter(learned.get("stream_seeds") or ()), 0)
    return benchmark_stream(benchmark.removeprefix("mixed-"), num_tasks, seed=seed, source=data)


def _policy(
    name: str, model: Any, goals: int = 50, processes: int = 2, seed: int = 0, gif: Path | None = None
) -> dict[str, Any]:
    options: dict[str, Any] = {"seed": seed, "fast": True, "progress": True}
    if gif is not None:  # first: what cannot be drawn is said at once
        save_gif(record_policy(model, **options), gif)
        Console().print(f"Wrote {gif}: the first test goal of each task.")
    report = evaluate_policy(model, num_goals=goals, num_processes=processes, **options)
    table = Table("task", "success", "at the last step", "steps", title=f"{name}: {goals} test goals a task")
    assert report.last is not None
    for task, last in zip(report.tasks, report.last.mean(axis=1), strict=True):
        steps = report.steps_to_success[task]
        table.add_row(task, f"{report.per_task[task]:.2f}", f"{last:.2f}", "·" if steps is None else f"{steps:.0f}")
    table.add_section()
    low, high = report.interval()
    table.add_row("mean", f"{report.mean:.3f} ({low:.3f} to {high:.3f})", f"{report.mean_at_last_step:.3f}")
    Console().print(table)
    Console().print("Success at any step of an episode of 500; in brackets the 95 % interval over goals.")
    return {"seed": seed, "mean": report.mean, **report.to_record()}
