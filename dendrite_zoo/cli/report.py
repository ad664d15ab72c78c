"""``dendrite-zoo report``: the results of several runs, side by side."""

from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console

from dendrite_zoo.records import ResultRecord, merge_seeds, read_records, write_records
from dendrite_zoo.report import accuracy_by, plot_accuracy, results_table
from dendrite_zoo.report.curves import By, Swept


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("runs", nargs="+", type=Path, help="Run folders, or JSON files of result records.")
    parser.add_argument("--json", dest="json_file", type=Path, help="Write the merged records there, too.")
    parser.add_argument(
        "--figures", type=Path, help="Draw accuracy by tasks, segments and density there, beside published numbers."
    )


def run(runs: list[Path], json_file: Path | None, figures: Path | None) -> None:
    """Print a table for each benchmark; write the records and draw the figures where asked."""
    records = merge_seeds(record for run in runs for record in read_records(run))
    for of_one in _by_benchmark(records).values():
        Console().print(results_table(of_one))
    if json_file:
        write_records(records, json_file)
    if figures:
        _draw(records, figures)


def _by_benchmark(records: list[ResultRecord]) -> dict[str, list[ResultRecord]]:
    names = dict.fromkeys(record.benchmark for record in records)  # in their order
    return {name: [record for record in records if record.benchmark == name] for name in names}


def _draw(records: list[ResultRecord], folder: Path) -> None:
    """Every figure that the records have points for; benchmarks apart."""
    folder.mkdir(parents=True, exist_ok=True)
    benchmarks = _by_benchmark(records)
    for benchmark, of_one in benchmarks.items():
        swept: tuple[Swept, ...] = ("num_segments", "activation_density")
        axes: list[By] = [by for by in swept if accuracy_by(of_one, by)]
        if len({(record.method, record.num_tasks) for record in of_one}) == len(of_one):
            axes.append("num_tasks")  # else some point of a method has several values
        for by in axes:
            path = folder / f"accuracy-by-{by.replace('_', '-')}{f'-{benchmark}' * (len(benchmarks) > 1)}.png"
            plot_accuracy(of_one, by, path)
            Console().print(f"{path}", soft_wrap=True)
