"""The ``dendrite-zoo`` command."""

from __future__ import annotations

import logging
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jsonargparse import ArgumentParser

import dendrite_zoo

__all__ = ["main"]

Argument = tuple[tuple[str, ...], dict[str, Any]]
TRAINER_COMMANDS = {
    "fit": "Train by a recipe: --config configs/NAME.yaml; every argument can be given here too (--help shows all).",
    "validate": "Evaluate a checkpoint on the stream of a recipe, on what fit validates on: the test split, or the "
    "training rows that val_fraction keeps back.",
    "test": "Evaluate a checkpoint on the stream of a recipe, on its test split.",
}


COMMANDS: dict[str, tuple[Callable[..., None], tuple[Argument, ...]]] = {}


def arg(*names: str, **options: Any) -> Argument:
    """One argument of a command, as ``add_argument`` takes it."""
    return names, options


def command(name: str, *arguments: Argument) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command; the first line of its docstring is the help."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        COMMANDS[name] = function, arguments
        return function

    return register


@command(
    "demo",
    arg("--name", default="demo", help="Name of the run, its folder runs/NAME."),
    arg("--epochs", dest="epochs_per_task", type=int, default=5, help="Passes over each new task."),
)
def demo(name: str, epochs_per_task: int) -> None:
    """Load a pretrained model, teach it two new tasks, and see what it forgot; takes less than a minute."""
    from lightning.pytorch import Trainer, seed_everything

    from dendrite_zoo.callbacks import SparsityLogger
    from dendrite_zoo.cli.run_folder import RunLogger, run_callbacks, start_run
    from dendrite_zoo.lightning_modules import ContinualClassifier
    from dendrite_zoo.models import ActiveDendriteClassifier
    from dendrite_zoo.report import sparsity_table
    from dendrite_zoo.streams import PermutedTasks

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its notes on hardware and loggers
    torch.set_num_threads(1)  # for a network this small more threads would wait for each other
    folder = start_run(Path("runs") / name, replace=True)
    seed_everything(0, verbose=False)
    model = ActiveDendriteClassifier.from_pretrained("permuted-digits")
    first = model.num_tasks
    stream = PermutedTasks(
        "digits", num_tasks=first + 2, first_task=first, epochs_per_task=epochs_per_task, batch_size=32
    )
    module = ContinualClassifier(model)
    callbacks = run_callbacks(folder)
    sparsity = next(callback for callback in callbacks if isinstance(callback, SparsityLogger))
    trainer = Trainer(
        **stream.trainer_kwargs(),
        logger=RunLogger(folder),
        callbacks=callbacks,
        enable_model_summary=False,
        log_every_n_steps=5,
    )
    console = _console()

    console.rule(f"permuted-digits as loaded: {first} tasks learned, contexts inferred from each input")
    trainer.validate(module, stream, verbose=False)
    before = sparsity.values
    console.print(sparsity_table(before))

    console.rule(f"fine-tuned on tasks {first} and {first + 1}, permutations it had never seen")
    trainer.fit(module, stream)
    console.print(sparsity_table(sparsity.values, before))

    model.save_pretrained(folder / "model")
    again = ActiveDendriteClassifier.from_pretrained(folder / "model")
    x, _ = next(iter(stream.task_loader(task=0, split="test")))
    with torch.no_grad():
        equal = torch.equal(model.eval()(x.cpu()), again(x.cpu()))
    console.rule(f"{folder}: metrics.csv, matrix.png, model")
    console.print(f"The fine-tuned model, saved and loaded again, gives {'equal' if equal else 'DIFFERENT'} outputs.")


@command("list", arg("--hub", action="store_true", help="List what people have published on the Hugging Face Hub."))
def list_models(hub: bool) -> None:
    """List the pretrained models of the zoo."""
    from rich.table import Column, Table

    from dendrite_zoo.hub import registry

    if hub:
        from dendrite_zoo.hub.publish.upload import published

        table = Table("repo", "benchmarks", "downloads", title="On the Hub")
        for row in published():
            table.add_row(row["repo"], ", ".join(row["benchmarks"]), str(row["downloads"]))
        _console().print(table)
        return
    table = Table(Column("name", no_wrap=True), "trained on", "result", "size", "weights", title="The zoo")
    for entry in registry.entries().values():
        place = "bundled" if entry.bundled else entry.repo if entry.revision else f"not published; make: {entry.build}"
        table.add_row(entry.name, entry.trained_on, entry.headline, f"{entry.size / 1e6:.1f} MB", place)
    _console().print(table)


@command(
    "evaluate",
    arg("model", help="A zoo name, org/repo, org/repo@revision, or a folder."),
    arg("--benchmark", help="Such as permuted-digits (default: what the model was trained on)."),
    arg("--num-tasks", type=int, help="How many tasks (default: those it has learned)."),
    arg("--seed", type=int, help="Seed of the stream of tasks (default: that it learned), or of a policy's goals (0)."),
    arg("--data", help="A local folder to take the data from."),
    arg("--json", dest="json_file", type=Path, help="Write the scores there, too."),
    arg("--goals", type=int, help="Of a policy: unseen goals of each task, one episode each (default: 50)."),
    arg("--processes", type=int, help="Of a policy: processes that play; 0 for this one alone (default: 2)."),
)
def evaluate(
    model: str,
    benchmark: str | None,
    num_tasks: int | None,
    seed: int | None,
    data: str | None,
    json_file: Path | None,
    goals: int | None,
    processes: int | None,
) -> None:
    """Evaluate a classifier with its context inferred, given and constant; a policy on goals it has never seen."""
    from rich.table import Table

    from dendrite_zoo.lightning_modules import evaluate_contexts
    from dendrite_zoo.models import ActiveDendritePolicy, load
    from dendrite_zoo.report import write_record
    from dendrite_zoo.streams import benchmark_stream

    loaded = load(model)
    policy = isinstance(loaded, ActiveDendritePolicy)
    of_classifiers = {"--benchmark": benchmark, "--num-tasks": num_tasks, "--data": data}
    of_policies = {"--goals": goals, "--processes": processes}
    if strange := [name for name, value in (of_classifiers if policy else of_policies).items() if value is not None]:
        kind = "policy" if policy else "classifier"
        raise ValueError(f"{', '.join(strange)} came for a {kind}; expected one of its own options, see --help.")
    if policy:
        _evaluate_policy(
            model, loaded, 50 if goals is None else goals, 2 if processes is None else processes, seed or 0, json_file
        )
        return
    name = benchmark or next((record["benchmark"] for record in loaded.results or ()), None)
    if name is None:
        raise ValueError(f"{model} does not say what it was trained on; give --benchmark, such as permuted-digits.")
    num_tasks = getattr(loaded, "num_tasks", None) if num_tasks is None else num_tasks
    if num_tasks is None:
        raise ValueError(f"{model} does not say how many tasks it has learned; give --num-tasks.")
    if seed is None:  # other permutations are other tasks
        seed = next(
            (r["stream_seeds"][0] for r in loaded.results or () if r["benchmark"] == name and r.get("stream_seeds")), 0
        )
    stream = benchmark_stream(name, num_tasks, seed=seed, source=data)
    scores = evaluate_contexts(loaded, stream)
    table = Table("task", *scores, title=f"{model} on {name}: accuracy, context {', '.join(scores)}")
    for task in range(stream.num_tasks):
        table.add_row(str(task), *(f"{values[task]:.3f}" for values in scores.values()))
    table.add_section()
    table.add_row("mean", *(f"{sum(values) / len(values):.4f}" for values in scores.values()))
    _console().print(table)
    if json_file:
        write_record({"model": model, "benchmark": name, "seed": seed, **scores}, json_file)


def _evaluate_policy(name: str, policy: Any, goals: int, processes: int, seed: int, json_file: Path | None) -> None:
    from rich.table import Table

    from dendrite_zoo.report import write_record
    from dendrite_zoo.rl import evaluate_policy

    report = evaluate_policy(policy, num_goals=goals, num_processes=processes, seed=seed, fast=True, progress=True)
    table = Table("task", "success", "at the last step", "steps", title=f"{name}: {goals} unseen goals a task")
    assert report.last is not None
    last, steps = report.last.mean(axis=1), report.steps_to_success
    for task, at_last in zip(report.tasks, last, strict=True):
        taken = steps[task]
        table.add_row(task, f"{report.per_task[task]:.2f}", f"{at_last:.2f}", "·" if taken is None else f"{taken:.0f}")
    table.add_section()
    low, high = report.interval()
    table.add_row("mean", f"{report.mean:.3f} ({low:.3f} to {high:.3f})", f"{report.mean_at_last_step:.3f}")
    _console().print(table)
    _console().print("Success at any step of an episode of 500; in brackets the 95 % interval over goals.")
    if json_file:
        write_record({"model": name, "seed": seed, "mean": report.mean, **report.to_record()}, json_file)


@command(
    "publish",
    arg("source", nargs="?", type=Path, help="A run folder, an artifact's folder, or a Lightning checkpoint."),
    arg("--repo", help="org/name; made where missing."),
    arg("--private", action="store_true", help="Make it a private repo."),
    arg("--revision", default="main", help="Branch to publish to."),
    arg("--dry-run", action="store_true", help="Show what would be sent, and send nothing."),
    arg("--all", action="store_true", help="Publish every entry of the zoo instead, to --namespace."),
    arg("--namespace", help="Organisation or user that the zoo's entries go to."),
)
def publish(
    source: Path | None,
    repo: str | None,
    private: bool,
    revision: str,
    dry_run: bool,
    all: bool,
    namespace: str | None,
) -> None:
    """Publish a model with its card to the Hugging Face Hub; run again after a failure, it goes on."""
    import dendrite_zoo.models  # noqa: F401  (which registers its classes)
    from dendrite_zoo.hub import publish as publishing

    if all:
        if namespace is None or source is not None or repo is not None:
            raise ValueError("--all came; expected --namespace ORG and nothing else to publish.")
        releases = publishing.publish_all(namespace, private=private or None, dry_run=dry_run)
        for entry, release in releases:
            _show_release(release, dry_run) if release else _console().print(
                f"{entry.name}: no weights here; make them: {entry.build}"
            )
        return
    if source is None or repo is None:
        raise ValueError("publish needs a model and a name: dendrite-zoo publish runs/NAME --repo org/name")
    release = publishing.publish(source, repo, private=private or None, revision=revision, dry_run=dry_run)
    _show_release(release, dry_run)


@command(
    "hub",
    arg("--port", type=int, default=8000, help="Port to listen on, on 127.0.0.1."),
    arg("--datasets", dest="folder", type=Path, help="A mirror of data sets to serve, too: ORG/NAME/PATH."),
)
def hub(port: int, folder: Path | None) -> None:
    """Run a small Hub on this machine, to try publishing and loading without an account; Ctrl-C ends it."""
    import threading

    from dendrite_zoo.hub.loopback import Hub

    with Hub(datasets=folder, port=port) as server:
        variables = server.environment(Path("runs") / "hub-cache")
        _console().print("A hub that forgets everything when it ends. In another terminal:\n", highlight=False)
        _console().print("export " + " ".join(f"{name}={value}" for name, value in variables.items()), soft_wrap=True)
        _console().print("dendrite-zoo publish runs/NAME --repo me/NAME && dendrite-zoo evaluate me/NAME\n")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


@command(
    "report",
    arg("runs", nargs="+", type=Path, help="Run folders, or JSON files of result records."),
    arg("--json", dest="json_file", type=Path, help="Write the merged records there, too."),
    arg("--figures", type=Path, help="Draw accuracy by tasks, segments and density there, published numbers beside."),
    arg("--entry", help="In a checkout: make the zoo's entry of this name from the first run, with these results."),
    arg("--build", default="", help="The command that makes that entry."),
)
def report(runs: list[Path], json_file: Path | None, figures: Path | None, entry: str | None, build: str) -> None:
    """Put the results of several runs into one table, published ones beside; seeds of one row are merged."""
    from dendrite_zoo.records import merge_rows, read_records
    from dendrite_zoo.report import results_table, write_record

    records = merge_rows([record for run in runs for record in read_records(run)])
    for of_one in _by_benchmark(records).values():
        _console().print(results_table(of_one))
    if json_file:
        write_record(records, json_file)
    if figures:
        _draw(records, figures)
    if entry:
        import dendrite_zoo.models  # noqa: F401  (which registers its classes)
        from dendrite_zoo.hub.publish.entries import make_entry

        made = make_entry(entry, runs[0], records, build=build)
        _console().print(f"{made.name}: {made.headline}, {made.size / 1e6:.1f} MB")


def _by_benchmark(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    benchmarks: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        benchmarks.setdefault(record["benchmark"], []).append(record)
    return benchmarks


def _draw(records: list[dict[str, Any]], folder: Path) -> None:
    """Every figure that the records have points for; benchmarks apart."""
    from dendrite_zoo.report import accuracy_by, plot_accuracy
    from dendrite_zoo.report.curves import By, Swept

    folder.mkdir(parents=True, exist_ok=True)
    benchmarks = _by_benchmark(records)
    for benchmark, of_one in benchmarks.items():
        swept: tuple[Swept, ...] = ("num_segments", "activation_density")
        axes: list[By] = [by for by in swept if accuracy_by(of_one, by)]
        if len({(record["row"], record["num_tasks"]) for record in of_one}) == len(of_one):
            axes.append("num_tasks")  # else some point of a row has several values
        for by in axes:
            path = folder / f"accuracy-by-{by.replace('_', '-')}{f'-{benchmark}' * (len(benchmarks) > 1)}.png"
            plot_accuracy(of_one, by, path)
            _console().print(f"{path}", soft_wrap=True)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command; errors of use are one line on stderr."""
    argv = list(sys.argv[1:] if args is None else args)
    # Lightning 2.6 asks `isinstance(spec, LeafSpec)`, which torch 2.13 deprecates: nothing a user could act upon.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
    if argv and argv[0] in TRAINER_COMMANDS:
        from lightning.fabric.utilities.exceptions import MisconfigurationException
        from lightning.pytorch.utilities.exceptions import SIGTERMException

        from dendrite_zoo.cli.train import TrainingCLI

        try:
            TrainingCLI(args=None if args is None else argv)
        except SIGTERMException:
            print("dendrite-zoo fit: stopped by SIGTERM; go on with --ckpt_path last", file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)
        except UnpicklingError as error:
            held = re.search(r"GLOBAL (\S+)", str(error))
            sys.exit(
                f"dendrite-zoo {argv[0]}: the checkpoint holds more than tensors and plain values"
                f"{f' ({held[1]})' if held else ''}, so it was not read. Where you trust who wrote it: "
                "--weights_only false"
            )
        except (ValueError, OSError, ImportError, MisconfigurationException) as error:
            sys.exit(f"dendrite-zoo {argv[0]}: {error}")
        return
    parsed = _parser().parse_args(argv)
    chosen = parsed.pop("command")
    try:
        COMMANDS[chosen][0](**parsed[chosen].as_dict())
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"dendrite-zoo {chosen}: {error}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="dendrite-zoo",
        description="Networks with active dendrites: pretrained, trainable, and measured for what they forget.",
        version=dendrite_zoo.__version__,
    )
    commands = parser.add_subcommands(dest="command", required=True)
    for name, (function, arguments) in COMMANDS.items():
        sub = ArgumentParser(description=function.__doc__)
        for names, options in arguments:
            sub.add_argument(*names, **options)
        commands.add_subcommand(name, sub, help=function.__doc__)
    for name, summary in TRAINER_COMMANDS.items():
        commands.add_subcommand(name, ArgumentParser(), help=summary)
    return parser


def _show_release(release: Any, dry_run: bool) -> None:
    for path, size in release.files.items():
        _console().print(f"  {path}  {size:,} bytes")
    verb = "would be published to" if dry_run else "published to" if release.changed else "is published already:"
    _console().print(f"{release.repo} {verb} {release.url}", soft_wrap=True)


def _console() -> Any:
    from rich.console import Console

    return Console()


if __name__ == "__main__":
    main()
