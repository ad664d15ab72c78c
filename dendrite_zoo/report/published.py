"""What others published on permuted MNIST: mean accuracy over all tasks after the last one."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PUBLISHED", "PUBLISHED_FOR", "Published", "published"]

PUBLISHED_FOR = "permuted-mnist"
"""The benchmark of all these numbers."""


class Published(NamedTuple):
    """A curve of a paper.

    Args:
        row: the line of a results table it belongs to.
        context_at_test: ``"inferred"``, ``"given"`` or ``"none"``.
        accuracy: by the number of tasks.
        by_segments: by the number of segments a unit, for some numbers of tasks.
        by_density: by the share of active units, for some numbers of tasks.
    """

    row: str
    context_at_test: str
    accuracy: dict[int, float]
    by_segments: dict[int, dict[int, float]] = {}
    by_density: dict[int, dict[float, float]] = {}


def _table(numbers: str) -> dict[int, float]:
    return dict(zip((2, 5, 10, 25, 50, 100), map(float, numbers.split()), strict=True))


PUBLISHED = {
    one.row: one
    for one in (
        Published(
            "active dendrites",
            "inferred",
            _table(".9747 .9636 .9455 .9209 .8705 .8142"),
            by_segments={
                10: dict(
                    zip(
                        (2, 3, 5, 7, 10, 20, 30, 50, 100),
                        (0.9358, 0.9377, 0.9423, 0.9441, 0.9451, 0.9495, 0.9499, 0.9481, 0.9511),
                        strict=True,
                    )
                ),
                50: dict(
                    zip(
                        (2, 3, 5, 7, 10, 20, 30, 50, 100),
                        (0.7053, 0.7201, 0.7409, 0.7553, 0.7761, 0.7948, 0.8041, 0.8240, 0.8355),
                        strict=True,
                    )
                ),
            },
            by_density={
                10: dict(
                    zip(
                        (0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99),
                        (0.9341, 0.9490, 0.9429, 0.9014, 0.7601, 0.7315, 0.7391, 0.6965, 0.5712),
                        strict=True,
                    )
                )
            },
        ),
        Published("active dendrites, 10 segments", "inferred", _table(".9753 .9647 .9455 .9131 .8628 .7847")),
        Published("active dendrites, tasks found", "inferred", _table(".9755 .9600 .9432 .8864 .8534 .7691")),
        Published("active dendrites + SI", "inferred", _table(".9765 .9747 .9723 .9646 .9445 .9159")),
        Published("dendrites only", "inferred", _table(".9676 .8911 .8285 .7615 .6833 .6154")),
        Published("sparse only", "none", _table(".9657 .9389 .9133 .8459 .7556 .6561")),
        Published("MLP", "none", {10: 0.8203, 100: 0.4831}),
        Published("MLP + SI", "none", _table(".9800 .9790 .9710 .9460 .9050 .8250")),
        Published("XdG", "given", _table(".9800 .9780 .9720 .9030 .7900 .6200")),
        Published("XdG + SI", "given", _table(".9850 .9820 .9795 .9750 .9620 .9550")),
        Published("SupSup, an output a task", "inferred", {250: 0.9491}),
    )
}
"""By row. Iyer et al. 2022 (arXiv 2201.00042), tables and figures on permuted MNIST; SI, XdG: Masse et al. 2018; SupSup
(GNu, labels not shared): Wortsman et al. 2020 (arXiv 2006.14769)."""


def published(row: str, benchmark: str = PUBLISHED_FOR) -> Published:
    """Give what was published for a row of a results table; empty curves where nothing was.

    Args:
        row: the row's name, as records hold it.
        benchmark: the benchmark's name.

    Example:
        >>> published("XdG").accuracy[10], published("XdG", "split-mnist").accuracy
        (0.972, {})
    """
    nothing = Published(row, "", {})
    return PUBLISHED.get(row, nothing) if benchmark == PUBLISHED_FOR else nothing
