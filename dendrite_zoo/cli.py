"""The ``dendrite-zoo`` command."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, set_parsing_settings

import dendrite_zoo

__all__ = ["main"]

TRAINER_COMMANDS = {
    "fit": "Train by a recipe: --config configs/NAME.yaml; every argument can be given here too (--help shows all).",
    "validate": "Evaluate a checkpoint on the stream of a recipe, on its validation split.",
    "test": "Evaluate a checkpoint on the stream of a recipe, on its test split.",
}


def demo(name: str = "demo", epochs_per_task: int = 5) -> None:
    """Load a pretrained model, teach it two new tasks, and see what it forgot. Takes less than a minute.

    The run folder runs/NAME then holds the metrics as CSV, the accuracy matrix as a picture, and the
    fine-tuned model.

    Args:
        name: name of the run.
        epochs_per_task: passes over the data of each new task.
    """
    from lightning.pytorch import Trainer, seed_everything

    from dendrite_zoo.callbacks import SparsityLogger
    from dendrite_zoo.lightning_modules import ContinualClassifier
    from dendrite_zoo.models import ActiveDendriteClassifier
    from dendrite_zoo.report import sparsity_table
    from dendrite_zoo.run_folder import RunLogger, run_callbacks, start_run
    from dendrite_zoo.streams import PermutedTasks

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its notes on hardware and loggers
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
    before = sparsity.figures
    console.print(sparsity_table(before))

    console.rule(f"fine-tuned on tasks {first} and {first + 1}, permutations it had never seen")
    trainer.fit(module, stream)
    console.print(sparsity_table(sparsity.figures, before))

    model.save_pretrained(folder / "model")
    again = ActiveDendriteClassifier.from_pretrained(folder / "model")
    x, _ = next(iter(stream.task_loader(task=0, split="test")))
    with torch.no_grad():
        equal = torch.equal(model.eval()(x.cpu()), again(x.cpu()))
    console.rule(f"{folder}: metrics.csv, matrix.png, model")
    console.print(f"The fine-tuned model, saved and loaded again, gives {'equal' if equal else 'DIFFERENT'} outputs.")


def list_models(hub: bool = False) -> None:
    """List the pretrained models.

    Args:
        hub: also ask the Hugging Face Hub for models that others have published.
    """
    from rich.table import Table

    from dendrite_zoo.hub import registry

    table = Table("name", "trained on", "result", "size", "weights", title="The zoo")
    for entry in registry.entries().values():
        place = "bundled" if entry.bundled else entry.repo if entry.revision else f"not published; make: {entry.build}"
        table.add_row(entry.name, entry.trained_on, entry.headline, f"{entry.size / 1e6:.1f} MB", place)
    _console().print(table)


def evaluate(
    model: str,
    benchmark: str | None = None,
    num_tasks: int | None = None,
    seed: int = 0,
    data: str | None = None,
    json_file: Path | None = None,
) -> None:
    """Evaluate a model on its tasks, with the context inferred from each input, given, and constant.

    Args:
        model: a zoo name, org/repo, org/repo@revision, or a folder.
        benchmark: such as permuted-digits; by default what the model was trained on.
        num_tasks: how many tasks; by default those it has learned.
        seed: of the stream of tasks.
        data: a local folder to take the data from.
        json_file: write the scores there, too.
    """
    from rich.table import Table

    from dendrite_zoo.lightning_modules import evaluate_contexts
    from dendrite_zoo.models import load
    from dendrite_zoo.report import write_record
    from dendrite_zoo.streams import benchmark_stream

    loaded = load(model)
    name = benchmark or next((record["benchmark"] for record in loaded.results or ()), None)
    if name is None:
        raise ValueError(f"{model} does not say what it was trained on; give --benchmark, such as permuted-digits.")
    stream = benchmark_stream(name, num_tasks or loaded.num_tasks, seed=seed, source=data)
    scores = evaluate_contexts(loaded, stream)
    table = Table("task", *scores, title=f"{model} on {name}: accuracy, context {', '.join(scores)}")
    for task in range(stream.num_tasks):
        table.add_row(str(task), *(f"{values[task]:.3f}" for values in scores.values()))
    table.add_section()
    table.add_row("mean", *(f"{sum(values) / len(values):.4f}" for values in scores.values()))
    _console().print(table)
    if json_file:
        write_record({"model": model, "benchmark": name, "seed": seed, **scores}, json_file)


def report(runs: list[Path], json_file: Path | None = None) -> None:
    """Put the results of several runs into one table; seeds of one row are merged.

    Args:
        runs: run folders, or JSON files of result records.
        json_file: write the merged records there, too.
    """
    from rich.table import Table

    from dendrite_zoo.report import merge_rows, read_records, write_record

    records = merge_rows([record for run in runs for record in read_records(run)])
    table = Table(
        "benchmark", "row", "tasks", "context at test", "accuracy", "seeds", title="Mean accuracy over all tasks"
    )
    for record in records:
        spread = record["average_accuracy_std"]
        accuracy = f"{record['average_accuracy']:.4f}" + ("" if spread is None else f" ± {spread:.4f}")
        row = (record["benchmark"], record["row"], record["num_tasks"], record["context_at_test"], accuracy)
        table.add_row(*map(str, row), ", ".join(map(str, record["seeds"])))
    _console().print(table)
    if json_file:
        write_record(records, json_file)


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "list": list_models,
    "evaluate": evaluate,
    "report": report,
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command; errors of use are one line on stderr."""
    argv = list(sys.argv[1:] if args is None else args)
    # Lightning 2.6 asks `isinstance(spec, LeafSpec)`, which torch 2.13 deprecates: nothing a user could act upon.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
    if argv and argv[0] in TRAINER_COMMANDS:
        from dendrite_zoo.training_cli import TrainingCLI

        try:
            TrainingCLI(args=None if args is None else argv)
        except FileExistsError as error:
            sys.exit(f"dendrite-zoo {argv[0]}: {error}")
        return
    parsed = _parser().parse_args(argv)
    chosen = parsed.pop("command")
    try:
        COMMANDS[chosen](**parsed[chosen].as_dict())
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"dendrite-zoo {chosen}: {error}")


def _parser() -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=False)
    parser = ArgumentParser(
        prog="dendrite-zoo",
        description="Networks with active dendrites: pretrained, trainable, and measured for what they forget.",
        version=dendrite_zoo.__version__,
    )
    commands = parser.add_subcommands(dest="command", required=True)
    for name, function in COMMANDS.items():
        summary = (function.__doc__ or "").partition("\n\n")[0]
        sub = ArgumentParser(description=summary)
        sub.add_function_arguments(function, as_positional=True, skip={"runs"})
        if function is report:  # several words, not one in brackets
            sub.add_argument("runs", nargs="+", type=Path, help="Run folders, or JSON files of result records.")
        commands.add_subcommand(name, sub, help=summary)
    for name, summary in TRAINER_COMMANDS.items():
        commands.add_subcommand(name, ArgumentParser(), help=summary)
    return parser


def _console() -> Any:
    from rich.console import Console

    return Console()


if __name__ == "__main__":
    main()
