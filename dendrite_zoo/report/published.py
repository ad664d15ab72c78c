"""What others published on permuted MNIST: mean accuracy over all tasks after the last one."""

from pathlib import Path

from dendrite_zoo.records import read_records

__all__ = ["PUBLISHED", "published_accuracy"]

PUBLISHED = read_records(Path(__file__).with_suffix(".json"))
"""Records without a run. Iyer et al. 2022 (arXiv 2201.00042), tables and figures on permuted MNIST, of which those by
segments or by density have that argument as their ``model``; SI, XdG: Masse et al. 2018; SupSup (GNu, labels not
shared): Wortsman et al. 2020 (arXiv 2006.14769)."""
PUBLISHED_FOR = "permuted-mnist"
"""The benchmark of all these numbers."""


def published_accuracy(method: str) -> dict[int, float]:
    """What was published for a method, by the number of tasks; empty where nothing was.

    Example:
        >>> published_accuracy("MLP")
        {10: 0.8203, 100: 0.4831}
    """
    own = [record for record in PUBLISHED if record.method == method and record.model is None]
    return {record.num_tasks: record.average_accuracy for record in own}
