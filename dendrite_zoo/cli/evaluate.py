"""``dendrite-zoo evaluate``: how well a model does what it has learned."""

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console
from rich.table import Table

from dendrite_zoo._core.redact import typed_command
from dendrite_zoo.cli.import_paths import made_by
from dendrite_zoo.cli.policy_scores import show_success
from dendrite_zoo.hub.artifact import RESULTS
from dendrite_zoo.lightning_modules import evaluate_contexts
from dendrite_zoo.models import ActiveDendritePolicy, AdaptedBackbone, load
from dendrite_zoo.records import ResultRecord, write_records
from dendrite_zoo.report import save_gif, write_record
from dendrite_zoo.rl import MT50, SuccessReport, evaluate_policy, record_policy
from dendrite_zoo.streams import TaskSequence, TaskStream, benchmark_stream

CLASSIFIER_OPTIONS = "benchmark", "num_tasks", "data"
POLICY_OPTIONS = "goals", "processes", "gif", "record", "stop_at_success"


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("model", help="A zoo name, org/repo, org/repo@revision, or a folder.")
    add("--benchmark", help="Such as permuted-digits (default: what the model was trained on).")
    add("--num-tasks", type=int, help="How many tasks (default: those it has learned).")
    add("--seed", type=int, help="Seed of the stream (default: the one it learned), or of a policy's goals (0).")
    add("--backbone", help="What builds the network that dendrites are on: a function, such as my_networks.resnet.")
    add("--data", help="A local folder to take the data from.")
    add("--json", dest="json_file", type=Path, help="Write the scores there, too.")
    add("--goals", type=PositiveInt, help="Of a policy: test goals of each task, one episode each (default: 50).")
    add("--processes", type=NonNegativeInt, help="Of a policy: worker processes; 0 for this one alone (default: 2).")
    add(
        "--stop-at-success", action="store_true", default=None, help="Of a policy: end episodes there, which is faster."
    )
    add("--record", type=Path, help="Of a policy: write the record of its run there, with these scores in it.")
    add("--gif", type=Path, help="Of a policy: draw its skills at work into this file, too (it takes OpenGL).")


def run(model: str, json_file: Path | None, **options: Any) -> None:
    """Print a table of scores, and write them to a file where one is given."""
    backbone = options.pop("backbone", None)
    loaded = load(model, **({} if backbone is None else {"backbone": made_by(backbone, "--backbone")}))
    if isinstance(loaded, AdaptedBackbone) and loaded.extractor is None:
        named = loaded.config["backbone_name"] or "a backbone without a name"
        got = f"none, and {model} was learned on {named}, which it does not contain"
        raise ValueError(f"Expected `--backbone`, a function that builds it, but got {got}.")
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
    if num_tasks is None:  # a model of sums alone knows classes, and its record the tasks
        num_tasks = getattr(model, "num_tasks", 0) or learned.get("num_tasks")
    own_data = benchmark.endswith("-custom") and data is None
    if not benchmark or num_tasks is None or own_data:
        missing = "--benchmark" if not benchmark else "--num-tasks" if num_tasks is None else "--data"
        raise ValueError(f"Expected `{missing}`, because {name} does not say it. See dendrite-zoo evaluate --help")
    if seed is None:  # other permutations are other tasks
        seed = next(iter(learned.get("stream_seeds") or ()), 0)
    return _named_stream(benchmark, num_tasks, source=data, seed=seed, flatten=not isinstance(model, AdaptedBackbone))


def _named_stream(benchmark: str, num_tasks: int, *, source: str | None, **options: Any) -> TaskStream:
    """The stream of a benchmark, or data sets one after another: ``mnist+fashion-mnist``."""
    if "+" in benchmark and source is None:
        return TaskSequence(benchmark.split("+")[:num_tasks], **options)
    return benchmark_stream(benchmark.removeprefix("mixed-"), num_tasks, source=source, **options)


def _policy(
    name: str,
    model: Any,
    *,
    goals: int = 50,
    processes: int = 2,
    seed: int = 0,
    gif: Path | None = None,
    stop_at_success: bool = False,
    record: Path | None = None,
) -> dict[str, Any]:
    if own := ", ".join(task for task in model.tasks if task not in MT50):
        run, checkpoint = Path(name), Path(name, "checkpoints", "last.ckpt")
        test = f"Play those of its data: dendrite-zoo test --config {run / 'config.yaml'} --ckpt_path {checkpoint}; or "
        raise ValueError(
            f"Expected a policy of Meta-World's tasks, but {name} has {own}, whose environments a file of weights does "
            f"not have. {test * checkpoint.is_file()}evaluate it in Python: "
            "dendrite_zoo.rl.evaluate_policy(policy, [TaskSpec(name, make_env), ...])"
        )
    options: dict[str, Any] = {"seed": seed, "fast": True, "progress": True}
    learned = None if record is None else _record_of(name, model)  # first: what is missing is said at once
    if gif is not None:  # first: what cannot be drawn is said at once
        save_gif(record_policy(model, **options), gif)
        Console().print(f"Wrote {gif}: the first test goal of each task.")
    options["stop_at_success"] = stop_at_success
    report = evaluate_policy(model, _order(learned, model), num_goals=goals, num_processes=processes, **options)
    show_success(report, f"{name}: {goals} test goals a task")
    if learned is not None and record is not None:
        _write_again(_measured_again(learned, report), record, name, model)
    return {"seed": seed, "mean": report.mean, **report.to_record()}


def _write_again(again: ResultRecord, file: Path, name: str, model: Any) -> None:
    """Write a record, and where it is that of a run's folder, into what is published of it, too."""
    write_records([again], file)
    published = file.parent / "model" / RESULTS
    if file.parent.resolve() == Path(name).resolve() and published.is_file():
        write_records([again, *(ResultRecord.from_json(one, name) for one in model.results[1:])], published)


def _record_of(name: str, model: Any) -> ResultRecord:
    """The record of the run that a model is of."""
    if not model.results:
        raise ValueError(
            f"Expected a model with the record of its run for --record, but {name} has none. Leave it out, "
            "or let the run play one: fit --resume RUN --test_goals 1."
        )
    record = ResultRecord.from_json(model.results[0], name)
    if len(record.seeds) > 1:
        got = f"the merged record of seeds {', '.join(map(str, record.seeds))}"
        raise ValueError(f"Expected the record of one run for --record, but {name} has {got}. Evaluate a run's folder.")
    return record


def _order(record: ResultRecord | None, model: Any) -> list[str]:
    """All tasks of a policy, in the order of its record's matrix where that is of all of them."""
    tasks: list[str] = [] if record is None else record.more.get("tasks") or []
    return tasks if sorted(tasks) == sorted(model.tasks) else list(model.tasks)


def _measured_again(record: ResultRecord, report: SuccessReport) -> ResultRecord:
    """The record of a run, with what was just measured, and both commands."""
    matrix, tasks = record.matrix, record.more.get("tasks") or list(report.tasks)
    if matrix is not None and (len(matrix) < len(report.tasks) or tasks != list(report.tasks)):
        matrix = None  # of some of the policy's tasks
    scores = report.to_record(sequential=matrix is not None)
    named = {name: scores.pop(name) for name in ("benchmark", "context_at_test", "task_accuracies")}
    ran = (record.command or "").partition(" && dendrite-zoo evaluate")[0]
    named["command"] = " && ".join(filter(None, [ran, typed_command("dendrite-zoo")]))
    named |= {"average_accuracy": statistics.fmean(named["task_accuracies"]), "num_tasks": len(report.tasks)}
    return replace(record, **named, matrix=matrix, more=record.more | scores)
