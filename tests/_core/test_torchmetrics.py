"""What a metric was updated with in a while: the copy gives what a fresh metric gives of that while alone."""

import pytest
import torch
import torchmetrics
from torchmetrics import Metric
from torchmetrics.classification import BinaryAveragePrecision, MulticlassConfusionMatrix, MulticlassF1Score

from dendrite_zoo._core.torchmetrics import holds, only_between, states_of, submetrics


class Listed(Metric):
    """Keeps what it is given in lists that are not to be reduced, as MeanAveragePrecision does."""

    def __init__(self):
        super().__init__()
        self.add_state("seen", default=[], dist_reduce_fx=None)

    def update(self, p, y):
        self.seen.append((p.argmax(1) == y).float())

    def compute(self):
        return torch.cat(self.seen).mean()


class Pair(Metric):
    """A metric within a metric, and a state of its own."""

    def __init__(self):
        super().__init__()
        self.inner = MulticlassF1Score(3)
        self.add_state("samples", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, p, y):
        self.inner.update(p, y)
        self.samples += len(y)

    def compute(self):
        return self.inner.compute() + self.samples

    def reset(self):
        super().reset()
        self.inner.reset()


def both(metric):
    return {id(part): states_of(part) for part in submetrics(metric)}


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    p, y = torch.rand(20, 3, generator=generator), torch.randint(3, (20,), generator=generator)
    return p, y


def scores(seed):
    p, y = batch(seed)
    return p[:, 0], (y == 0).long()


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (lambda: MulticlassF1Score(3), batch),
        (lambda: MulticlassConfusionMatrix(3), batch),
        (lambda: BinaryAveragePrecision(thresholds=None), scores),
        (lambda: BinaryAveragePrecision(thresholds=5), scores),
        (torchmetrics.R2Score, scores),
        (torchmetrics.SpearmanCorrCoef, lambda seed: (scores(seed)[0], scores(seed + 50)[0])),
        (Listed, batch),
        (Pair, batch),
        (lambda: MulticlassF1Score(3) + torchmetrics.classification.MulticlassAccuracy(3), batch),
    ],
)
@pytest.mark.filterwarnings("ignore:Metric `SpearmanCorrcoef` will save all targets")
def test_the_later_part_alone(make, data):
    metric, fresh = make(), make()
    metric.update(*data(0))
    before = both(metric)
    for seed in (1, 2):
        metric.update(*data(seed))
        fresh.update(*data(seed))
    whole = metric.compute()
    own = only_between(metric, before, both(metric))
    torch.testing.assert_close(own.compute(), fresh.compute())
    assert torch.equal(metric.compute(), whole), "the metric itself is as it was"
    with_states = [part for part in submetrics(metric) if before[id(part)].values]
    assert with_states and not any(holds(part, before[id(part)]) for part in with_states)
    assert all(holds(part, states_of(part)) for part in with_states)


@pytest.mark.parametrize("kind", [torchmetrics.MaxMetric, torchmetrics.PearsonCorrCoef])
def test_what_cannot_be_told_apart(kind):
    metric = kind()
    values = (
        [(torch.arange(3.0),), (torch.arange(2.0),)]
        if kind is torchmetrics.MaxMetric
        else [(p, y.float()) for p, y in (scores(0), scores(1))]
    )
    metric.update(*values[0])
    before = both(metric)
    metric.update(*values[1])
    assert only_between(metric, before, both(metric)) is None


def test_without_the_private_name_of_reductions_sums_cannot_be_told_apart(monkeypatch):
    metric = torchmetrics.SumMetric()
    metric.update(1.0)
    before = both(metric)
    metric.update(2.0)
    monkeypatch.setattr(metric, "_reductions", {})
    assert only_between(metric, before, both(metric)) is None
