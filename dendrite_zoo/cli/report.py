"""``dendrite-zoo report``: the results of several runs, side by side, and a page to look at them."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console

from dendrite_zoo._core.names import nearest_path
from dendrite_zoo.hub import registry
from dendrite_zoo.records import ResultRecord, merge_seeds, read_records, write_records
from dendrite_zoo.report import accuracy_by, plot_accuracy, plot_success, read_runs, results_table, write_page
from dendrite_zoo.report.curves import By, Swept

PAGE = "report.html"
PLACES = "run folders, JSON files of result records, or names of the zoo"


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("runs", nargs="+", type=Path, help=f"{PLACES[0].upper()}{PLACES[1:]}.")
    parser.add_argument("--json", dest="json_file", type=Path, help="Write the merged records there, too.")
    drawn = "Draw accuracy by tasks, segments and density there, beside published numbers, and success by steps."
    parser.add_argument("--figures", type=Path, help=drawn)
    page = f"Write a page to look at: {PAGE} in the run folder; of files or several runs, in the current folder."
    parser.add_argument("--html", action="store_true", help=page)


def run(runs: list[Path], json_file: Path | None, figures: Path | None, html: bool) -> None:
    """Print a table for each benchmark; write the records, the page, and every figure that they have points for."""
    console, places = Console(), [_place(run) for run in runs]
    shown = [one for place in places for one in read_runs(place)] if html else []  # of which some may not have ended
    ended = [one.record for one in shown if one.record is not None]
    records = merge_seeds(ended if html else chain.from_iterable(map(read_records, places)))
    benchmarks = _by_benchmark(records)
    for of_one in benchmarks.values():
        console.print(results_table(of_one))
    if json_file:
        write_records(records, json_file)
    for path in _draw(benchmarks, figures) if figures else ():
        console.print(f"{path}", soft_wrap=True)
    if html:
        path = write_page(shown, runs[0] / PAGE if len(runs) == 1 and runs[0].is_dir() else PAGE)
        console.print(f"{path}  {path.stat().st_size / 1e6:.1f} MB; open it in a browser", soft_wrap=True)


def _by_benchmark(records: list[ResultRecord]) -> dict[str, list[ResultRecord]]:
    names = dict.fromkeys(record.benchmark for record in records)  # in their order
    return {name: [record for record in records if record.benchmark == name] for name in names}


def _draw(benchmarks: Mapping[str, list[ResultRecord]], folder: Path) -> Iterator[Path]:
    """Draw the curves of each benchmark; give the paths."""
    for benchmark, records in benchmarks.items():
        for by in _axes(records):
            path = Path(f"{folder}/accuracy-by-{by.replace('_', '-')}{f'-{benchmark}' * (len(benchmarks) > 1)}.png")
            plot_accuracy(records, by, path)
            yield path
        learned = [record for record in records if record.curve]
        for n, record in enumerate(learned, start=1):
            path = Path(f"{folder}/success-by-steps-{benchmark}{f'-{n}' * (len(learned) > 1)}.png")
            title = f"{benchmark}: success on validation goals\n{record.method}"
            plot_success(record.curve, path, tasks=record.more.get("tasks"), title=title)
            yield path


def _place(run: Path) -> Path:
    """The folder or file of a run; of a name of the zoo, its folder in this package."""
    entries = {} if run.exists() else registry.entries()
    if str(run) in entries:
        return entries[str(run)].folder
    if entries and len(run.parts) == 1 and (meant := nearest_path(run, *entries)):
        raise FileNotFoundError(f"{run} holds no result records. Expected {PLACES}.{meant}")
    return run


def _axes(records: list[ResultRecord]) -> list[By]:
    """What the records of a benchmark have curves over."""
    swept: tuple[Swept, ...] = ("num_segments", "activation_density")
    axes: list[By] = [by for by in swept if accuracy_by(records, by)]
    if len({(record.method, record.num_tasks) for record in records}) == len(records):
        axes.append("num_tasks")  # else some point of a method has several values
    return axes
