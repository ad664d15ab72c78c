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
    drawn = "Draw accuracy by tasks, segments and density there, beside published numbers."
    parser.add_argument("--figures", type=Path, help=drawn)


def run(runs: list[Path], json_file: Path | None, figures: Path | None) -> None:
    """Print a table for each benchmark; write the records, and draw every figure that they have points for."""
    records = merge_seeds(record for run in runs for record in read_records(run))
    names = dict.fromkeys(record.benchmark for record in records)  # in their order
    benchmarks = {name: [record for record in records if record.benchmark == name] for name in names}
    for of_one in benchmarks.values():
        Console().print(results_table(of_one))
    if json_file:
        write_records(records, json_file)
    for benchmark, of_one in benchmarks.items() if figures else ():
        for by in _axes(of_one):
            path = Path(f"{figures}/accuracy-by-{by.replace('_', '-')}{f'-{benchmark}' * (len(benchmarks) > 1)}.png")
            plot_accuracy(of_one, by, path)
            Console().print(f"{path}", soft_wrap=True)


def _axes(records: list[ResultRecord]) -> list[By]:
    """What the records of a benchmark have curves over."""
    swept: tuple[Swept, ...] = ("num_segments", "activation_density")
    axes: list[By] = [by for by in swept if accuracy_by(records, by)]
    if len({(record.method, record.num_tasks) for record in records}) == len(records):
        axes.append("num_tasks")  # else some point of a method has several values
    return axes
