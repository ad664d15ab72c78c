"""Several seeds of one recipe as one record."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, combinations, repeat
from typing import Any, TypeVar

import torch

from dendrite_zoo.functional.bootstrap import bootstrap_interval
from dendrite_zoo.records.record import FURTHER, ResultRecord

__all__ = ["merge_records", "merge_seeds"]

T = TypeVar("T")
RECIPE = ("benchmark", "method", "context_at_test", "num_tasks", "config_hash")
"""What the seeds of one recipe have in common."""
PLAYED = ("tasks", "num_goals")
"""And those of policies, of which goals are known by their places."""
SUCCESS = ("interval", "success_at_last_step", "task_success_at_end", "steps_to_success", "first_success")
"""What is recorded of episodes, and is merged by its meaning."""
PER_SEED = "_per_seed"
"""What the name of a list of the values of all seeds ends in, beside their mean."""


def merge_records(records: Sequence[ResultRecord]) -> ResultRecord:
    """One record of several seeds: means, and the standard deviation over seeds (n - 1).

    Records that were merged before count as often as they have seeds. Numbers in ``more``, and lists of them, are means
    where the value of each seed is known, and ``<key>_per_seed`` has these values, but for whole numbers that are the
    same for all; everything else is that of the first record.

    Raises:
        ValueError: there are none, they are not of one recipe, a seed stands twice, or runs have no seed each, so that
            nobody can tell.

    Example:
        >>> one = ResultRecord(benchmark="b", method="m", context_at_test="none", num_tasks=2, average_accuracy=0.8,
        ...     seeds=[0], config_hash="c0ffee", wall_time_s=1.0)
        >>> merged = merge_records([one, replace(one, seeds=[1], average_accuracy=0.9)])
        >>> merged.seeds, round(merged.average_accuracy, 3), round(merged.average_accuracy_std, 3)
        ([0, 1], 0.85, 0.071)
    """
    _check_recipe(records)
    _check_seeds(records)
    first, runs = records[0], _joined([record] * len(record.per_seed) for record in records)
    accuracies = _joined(record.per_seed for record in records)
    streams = [record.stream_seeds or [] for record in records]
    return replace(
        first,
        average_accuracy=statistics.fmean(accuracies),
        average_accuracy_std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        average_accuracy_per_seed=accuracies,
        seeds=_joined(record.seeds for record in records),
        stream_seeds=_joined(streams) if all(streams) else None,
        more={**first.more, **_means_of_own(records), **_mean_success(records, runs)},
        **_means_of(runs),
    )


def merge_seeds(records: Iterable[ResultRecord]) -> list[ResultRecord]:
    """Merge the seeds of each recipe, in the order in which the recipes are met.

    Two runs are seeds of one recipe where their ``config_hash`` is equal. Where it is None, or a run has no seed,
    nothing is merged.
    """
    recipes: dict[Any, list[ResultRecord]] = {}
    for number, record in enumerate(records):
        unknown = record.config_hash is None or not _has_seeds(record)
        played = (repr(record.more.get(name)) for name in PLAYED)
        key = number if unknown else (*(getattr(record, name) for name in RECIPE), *played)
        recipes.setdefault(key, []).append(record)
    return [merge_records(seeds) if len(seeds) > 1 else seeds[0] for seeds in recipes.values()]


def _check_recipe(records: Sequence[ResultRecord]) -> None:
    if not records:
        raise ValueError("Expected the records of several seeds, but got none.")
    for name in (*RECIPE, "parameters", *PLAYED):
        found = [record.more.get(name) if name in PLAYED else getattr(record, name) for record in records]
        if len(values := sorted(set(map(repr, found)))) > 1:
            got = f"`{name}` {' and '.join(values)}"
            raise ValueError(f"Expected seeds of one recipe, but got {got}. Merge each alone.")
    if records[0].config_hash is None:
        raise ValueError("Expected seeds of one recipe, but `config_hash` is None: the recipe is not known.")


def _check_seeds(records: Sequence[ResultRecord]) -> None:
    """A seed of weights may stand twice where the stream had another seed each time."""
    for record in records:
        if not _has_seeds(record):
            got = f"{len(record.seeds)} of {len(record.per_seed)}"
            remedy = "Set a seed (`seed_everything`), or leave the record out."
            raise ValueError(f"Expected the seed and the average accuracy of each run, but got {got}. {remedy}")
    drawn = _joined(map(_drawn, records))
    for (seed, stream), (other, its_stream) in combinations(drawn, 2):
        if seed == other and (stream == its_stream or None in (stream, its_stream)):
            seeds = [seed for seed, _ in drawn]
            raise ValueError(f"Expected each seed once, but got {seeds} to merge. Leave the repeated record out.")


def _has_seeds(record: ResultRecord) -> bool:
    """Whether it is known which seed gave which average accuracy."""
    return len(record.seeds) == len(record.per_seed)


def _drawn(record: ResultRecord) -> list[tuple[int, int | None]]:
    """The seeds of weights and of the stream of each run."""
    streams = record.stream_seeds or []
    return list(zip(record.seeds, streams if len(streams) == len(record.seeds) else repeat(None), strict=False))


def _joined(lists: Iterable[Iterable[T]]) -> list[T]:
    return list(chain.from_iterable(lists))


def _means_of(runs: Sequence[ResultRecord]) -> dict[str, Any]:
    """Of what may be missing in a run; a mean over some of the runs is none."""
    return {
        "task_accuracies": _mean(run.task_accuracies for run in runs),
        "matrix": _mean((run.matrix for run in runs), places=6),
        "accuracy_by_context": _mean(run.accuracy_by_context for run in runs),
        "wall_time_s": _mean((run.wall_time_s for run in runs), places=1),
    }


def _mean(values: Iterable[Any], places: int | None = None) -> Any:
    """Of numbers, or entry by entry of lists and dictionaries of them; None where one is missing."""
    known = list(values)
    if None in known:
        return None
    if isinstance(known[0], list):
        return [_mean(entries, places) for entries in zip(*known, strict=True)]
    if isinstance(known[0], dict):
        common = [name for name in known[0] if all(name in one for one in known)]
        return {name: _mean((one[name] for one in known), places) for name in common}
    mean = statistics.fmean(known)
    return mean if places is None else round(mean, places)


def _means_of_own(records: Sequence[ResultRecord]) -> dict[str, Any]:
    """Means of numbers, and of lists of them, that somebody recorded besides, and the values of all seeds."""
    means: dict[str, Any] = {}
    for name in records[0].more:
        if name in (*PLAYED, *SUCCESS) or name.endswith(PER_SEED):
            continue
        values = _joined(_of_seeds(record, name) for record in records)
        shapes = {_shape(value) for value in values}
        if len(values) < sum(len(record.seeds) for record in records) or len(shapes) > 1 or None in shapes:
            continue
        if not _is_whole(values[0]) or any(value != values[0] for value in values):
            counts = FURTHER.get(name) == int | None  # such as `env_steps`, of which a record has whole numbers
            means |= {name: round(_mean(values)) if counts else _mean(values), f"{name}{PER_SEED}": values}
    return means


def _of_seeds(record: ResultRecord, name: str) -> list[Any]:
    """The values of all seeds of a record; none where they are not known, as of one that was merged without them."""
    if name not in record.more:
        return []
    value, seeds = record.more[name], len(record.seeds)
    single = [value] if seeds == 1 else []
    found: list[Any] = record.more.get(f"{name}{PER_SEED}", single)
    return found if len(found) == seeds else []


def _shape(value: Any) -> int | None:
    """How many numbers a list has, -1 for a number by itself; None for what has no mean."""
    if isinstance(value, list):
        return len(value) if all(_shape(one) == -1 for one in value) else None
    return -1 if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_whole(value: Any) -> bool:
    return all(isinstance(one, int) for one in (value if isinstance(value, list) else [value]))


def _mean_success(records: Sequence[ResultRecord], runs: Sequence[ResultRecord]) -> dict[str, Any]:
    """Of policies: the interval over goals and seeds, and means of what was measured besides."""
    if not all("first_success" in record.more for record in records):
        return {}
    goals = ((record.more["first_success"], record.average_accuracy_per_seed) for record in records)
    first = _joined(success if merged else [success] for success, merged in goals)  # of a merged record one a seed
    steps = zip(*(run.more["steps_to_success"] for run in runs), strict=True)
    return {
        "interval": list(bootstrap_interval(torch.tensor(first).numpy() > 0)),
        "success_at_last_step": _mean(run.more["success_at_last_step"] for run in runs),
        "task_success_at_end": _mean(run.more.get("task_success_at_end") for run in runs),
        "steps_to_success": [_mean(filter(None, task)) if any(task) else None for task in steps],
        "first_success": first,
    }
