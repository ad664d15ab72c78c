"""A run as its files tell of it, whole or not."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dendrite_zoo._core.files import read_json
from dendrite_zoo.records import ResultRecord, check_records, read_metrics, read_records, success_curve
from dendrite_zoo.report.matrix_record import as_doubles, read_matrix

__all__ = ["Run", "read_runs"]

MAX_CONFIG = 1 << 16  # characters of a config.yaml


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is known of a run; what was not recorded is empty.

    Args:
        name: such as that of its folder.
        record: the result record; None where the run has not ended.
        matrices: the accuracy matrix of each `ForgettingLogger`, as `dendrite_zoo.report.read_matrix` gives it.
        sparsity: layer to metric to value, as a `SparsityLogger` recorded it last.
        subnetworks: what a `SubnetworkLogger` recorded, see `dendrite_zoo.report.subnetwork_record`.
        points: of the curves of tasks, of robots their success: how far training was, and the values by task, in order.
        x: what says how far training was, such as ``"env_steps"``.
        measured: what the values of ``points`` are.
        config: the text of ``config.yaml``.
    """

    name: str
    record: ResultRecord | None = None
    matrices: Sequence[Mapping[str, Any]] = ()
    sparsity: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    subnetworks: Mapping[str, Any] | None = None
    points: Sequence[tuple[float, Mapping[str, float]]] = ()
    x: str = "step"
    measured: str = "success"
    config: str | None = None

    @classmethod
    def of_record(cls, record: ResultRecord, name: str | None = None) -> "Run":
        """A run of which the record is all that is known."""
        metric = record.more.get("metric") or "accuracy"
        matrix = [{"R": as_doubles(record.matrix), "metric": metric}] if record.matrix else []
        points = [(point["env_steps"], _under("success/", point)) for point in record.curve]
        return cls(
            name=name or record.method,
            record=record,
            matrices=matrix,
            sparsity=record.more.get("sparsity") or {},
            subnetworks=record.more.get("subnetworks"),
            points=points,
            x="env_steps",
        )


def read_runs(path: str | Path) -> list[Run]:
    """The runs of a run folder, also of one that has not ended, or of a JSON file of result records.

    Args:
        path: the folder or file. Beside the first record stands what else the folder tells: matrices with the untrained
            model and the number of samples, sub-networks, ``metrics.csv`` and ``config.yaml``.

    Raises:
        FileNotFoundError: there is nothing of a run.
        ValueError: a file is too large, or holds something else than a run writes.
    """
    path = Path(path)
    try:
        records = read_records(path)
    except FileNotFoundError:
        records = []
    if not path.is_dir():
        return [Run.of_record(record) for record in records or read_records(path)]
    name = path.resolve().name
    runs = [Run.of_record(record, record.method if len(records) > 1 else name) for record in records] or [
        Run(name=name)
    ]
    files = _files(path)
    if not (records or files):
        raise FileNotFoundError(
            f"{path} holds nothing of a run. Expected a run folder, or a JSON file of result records."
        )
    return [replace(runs[0], **files), *runs[1:]]


def _files(folder: Path) -> dict[str, Any]:
    """What the files of a run folder tell beside its record."""
    found: dict[str, Any] = {}
    if matrices := [read_matrix(file) for file in sorted(folder.glob("matrix*.json"))]:
        found["matrices"] = matrices
    if (file := folder / "subnetworks.json").is_file():
        check_records({"subnetworks": (subnetworks := read_json(file))}, file)
        found["subnetworks"] = subnetworks
    if (file := folder / "metrics.csv").is_file():
        found |= _metrics(file)
    if (file := folder / "config.yaml").is_file():
        with file.open(encoding="utf-8", errors="replace") as text:
            found["config"] = text.read(MAX_CONFIG)
    return found


def _metrics(file: Path) -> dict[str, Any]:
    """The last sparsity of each layer, and the curves of tasks."""
    layers: dict[str, dict[str, float | None]] = defaultdict(dict)
    for row in read_metrics(file, lambda name: name.startswith("sparsity/") and "/task_" not in name):
        for name, value in row.items():
            layer, _, metric = name.removeprefix("sparsity/").rpartition("/")
            layers[layer.removeprefix("model.")][metric] = value
    found: dict[str, Any] = {"sparsity": layers} if layers else {}
    if curve := success_curve(file.parent):
        points = [(point["env_steps"], _under("success/", point)) for point in curve]
        return found | {"points": points, "x": "env_steps"}
    for prefix, end, measured in (("success/", "", "success"), ("val/task_", "/acc", "accuracy")):
        if points := list(_over_steps(file, prefix, end)):
            return found | {"points": points, "x": "step", "measured": measured}
    return found


def _over_steps(file: Path, prefix: str, end: str) -> Iterator[tuple[float, dict[str, float]]]:
    def wanted(name: str) -> bool:
        return name == "step" or name.startswith(prefix) and name.endswith(end)

    for row in read_metrics(file, wanted):
        if "step" in row and (values := _under(prefix, row)):
            yield row["step"], {name.removesuffix(end): value for name, value in values.items()}


def _under(prefix: str, point: Mapping[str, float]) -> dict[str, float]:
    """The values whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in point.items() if name.startswith(prefix)}
