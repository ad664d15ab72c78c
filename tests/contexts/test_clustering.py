"""Clusters of contexts: the tests' distributions, what a cluster holds, and tasks found without being told."""

from __future__ import annotations

import math

import pytest
import torch

from dendrite_zoo.contexts import ClusterContext, HotellingContext
from dendrite_zoo.contexts.clustering import spread_and_rank
from dendrite_zoo.contexts.hotelling import f_cdf, hotelling_test
from dendrite_zoo.streams import PermutedTasks, SplitTasks
from tests.processes import in_two

FEATURES = 30


def correlated(rows, shift=0.0):
    """Rows whose features go together: an effective rank far below their number."""
    scale = torch.linspace(0.1, 2.0, FEATURES) ** 2
    mixing = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(5)))[0]
    return (torch.randn(rows, FEATURES) * scale) @ mixing.T + shift


def test_spread_and_rank_are_those_of_the_covariance():
    scale = torch.linspace(0.1, 2.0, FEATURES).double() ** 2
    trace, square = scale.square().sum(), scale.pow(4).sum()
    for rows in (20, 40000):  # fewer and more than features: either product of the matrix with itself
        draws = [spread_and_rank(correlated(rows)) for _ in range(400 if rows < 100 else 1)]
        spread, rank = (torch.stack(values).mean() for values in zip(*draws, strict=True))
        assert spread.item() == pytest.approx(trace.item(), rel=0.03)
        assert rank.item() == pytest.approx((trace**2 / square).item(), rel=0.15 if rows < 100 else 0.03)
    assert spread_and_rank(torch.ones(5, 4))[1] == 4 and spread_and_rank(torch.ones(5, 4))[0] == 0


def test_false_alarms_are_as_rare_as_asked():
    """A second batch of the same task founds a cluster as often as ``significance`` says."""
    alarms = 0
    for _ in range(1000):
        context = ClusterContext(FEATURES, 2, significance=0.05)
        context.observe(correlated(64))
        alarms += context.observe(correlated(64))
    assert 20 <= alarms <= 100  # of 50 expected


def test_a_cluster_holds_the_mean_and_spread_of_all_its_rows():
    context = ClusterContext(FEATURES, 3)
    batches = [correlated(rows) for rows in (64, 50, 7)]
    assert [context.observe(x) for x in batches] == [0, 0, 0]
    x = torch.cat(batches)
    torch.testing.assert_close(context.means[0], x.mean(0))
    torch.testing.assert_close(context.spread[0], x.var(0).sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(context.prototypes[0], batches[0].mean(0))  # the context stays what it was
    assert context.counts.tolist() == [121, 0, 0] and context.num_tasks == 1


def test_tasks_come_back():
    context = ClusterContext(FEATURES, 5)
    shifts = [0.0, 0.0, 1.0, 1.0, 0.0, -1.0, 1.0, -1.0]
    assert [context.observe(correlated(100, shift)) for shift in shifts] == [0, 0, 1, 1, 0, 2, 1, 2]
    codebook, index = context(torch.stack([torch.full((FEATURES,), shift) for shift in (-1.0, 0.0, 1.0)]))
    assert codebook is context.prototypes and index.tolist() == [2, 0, 1]


@pytest.mark.parametrize("make, batch_size", [(PermutedTasks, 32), (SplitTasks, 96)])
def test_finds_the_tasks_of_a_stream(make, batch_size):
    """Digits, in one pass: as many clusters as tasks, and no batch in a wrong one."""
    stream = make("digits", 5, batch_size=batch_size)
    context = ClusterContext(64, 10)
    found = [[context.observe(x) for x, _ in stream.task_loader(task)] for task in range(5)]
    assert [set(clusters) for clusters in found] == [{task} for task in range(5)]
    if make is PermutedTasks:
        x = torch.cat([x for x, _ in stream.task_loader(3, "test")])
        assert (context.infer(x) == 3).float().mean() > 0.98


def test_state_survives_half_precision_and_a_checkpoint(tmp_path):
    context = ClusterContext(FEATURES, 3)
    context.observe(correlated(64))
    context.half()
    torch.save(context.state_dict(), tmp_path / "state.pt")
    again = ClusterContext(FEATURES, 3)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for x in (correlated(64), correlated(64, 3.0)):
        assert context.observe(x) == again.observe(x)
    assert all(torch.equal(a, b) for a, b in zip(context.buffers(), again.buffers(), strict=True))


def test_where_there_is_no_more_room_the_nearest_takes_the_batch():
    context = ClusterContext(FEATURES, 2)
    assert [context.observe(correlated(64, shift)) for shift in (0.0, 3.0)] == [0, 1]
    with pytest.warns(UserWarning, match="All 2 clusters are in use, .* larger `max_tasks`"):
        assert context.observe(correlated(64, 4.0)) == 1


def _observe_shares(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    context = ClusterContext(FEATURES, 3)
    found = [context.observe(x[rank::2]) for x in torch.load(f"{folder}/batches.pt")]
    torch.save([found, context.state_dict()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    batches = [correlated(rows, shift) for rows, shift in ((65, 0.0), (64, 1.0), (33, 0.0))]
    torch.save(batches, tmp_path / "batches.pt")
    in_two(_observe_shares, str(tmp_path))
    context = ClusterContext(FEATURES, 3)
    expected = [context.observe(x) for x in batches]
    for rank in range(2):
        found, state = torch.load(tmp_path / f"{rank}.pt")
        assert found == expected == [0, 1, 0]
        for name, tensor in context.state_dict().items():
            rtol = 0.5 if name == "rank" else 1e-5  # each process estimates it from its share
            torch.testing.assert_close(state[name], tensor, rtol=rtol, atol=1e-6)


def test_constant_rows():
    context = ClusterContext(4, 3)
    assert [context.observe(torch.full((8, 4), value)) for value in (0.0, 0.0, 1.0)] == [0, 0, 1]


def test_the_f_distribution():
    """Closed forms: two degrees of freedom above or below, the square of Student's t, and both tails."""
    for x in (0.01, 0.5, 1.0, 3.0, 50.0):
        assert f_cdf(x, 2, 7) == pytest.approx(1 - (1 + 2 * x / 7) ** -3.5, rel=1e-9)
        assert f_cdf(x, 7, 2) == pytest.approx((7 * x / (7 * x + 2)) ** 3.5, rel=1e-9)
        assert f_cdf(x, 1, 1) == pytest.approx(2 / math.pi * math.atan(math.sqrt(x)), rel=1e-9)
        assert f_cdf(x, 256, 255) + f_cdf(1 / x, 255, 256) == pytest.approx(1, rel=1e-9)
    assert f_cdf(1.0, 256, 256) == pytest.approx(0.5, rel=1e-9)
    assert f_cdf(1.9838, 10, 30) == pytest.approx(0.927, abs=5e-3)
    assert f_cdf(2.1646, 10, 30) == pytest.approx(0.95, abs=1e-4)  # tables: F(.95; 10, 30) = 2.1646


def test_hotellings_statistic_has_that_distribution():
    """Of two samples of one kind, its share is uniform; with one number it is Student's t test."""
    shares = torch.tensor([hotelling_test(torch.randn(12, 3), torch.randn(9, 3)) for _ in range(1000)])
    for level in (0.1, 0.5, 0.9):
        assert (shares < level).float().mean().item() == pytest.approx(level, abs=0.04)
    x, y = torch.tensor([1.0, 2.0, 4.0])[:, None], torch.tensor([3.0, 5.0, 7.0])[:, None]
    variance = (x.var() + y.var()) / 2
    t = (x.mean() - y.mean()) / (variance * 2 / 3).sqrt()
    assert hotelling_test(x, y) == pytest.approx(f_cdf(t.item() ** 2, 1, 4), rel=1e-6)


def test_the_papers_clusters():
    """The first cluster that is not told apart takes the batch, and moves with it."""
    context = HotellingContext(FEATURES, 4, context_dim=10, num_exemplars=100, level=0.99999)
    batches = [correlated(64), correlated(64, 2.0), correlated(64), correlated(64)]
    assert [context.observe(x) for x in batches] == [0, 1, 0, 0]
    mine = torch.cat([batches[0], batches[2], batches[3]])[:, context.features]
    torch.testing.assert_close(context.prototypes[0], mine.mean(0))
    torch.testing.assert_close(context.exemplars[0], mine[:100])
    assert context.features.unique().numel() == 10 and context.context_dim == 10
    codebook, index = context(torch.stack([torch.zeros(FEATURES), torch.full((FEATURES,), 2.0)]))
    assert codebook.shape == (4, 10) and index.tolist() == [0, 1]
    assert context(batches[0], task=1).shape == (10,)


def test_bad_input():
    context = ClusterContext(4, 3)
    with pytest.raises(ValueError, match=r"finds tasks by itself. Call observe\(x\)"):
        context.start_task(0, [])
    with pytest.raises(ValueError, match="Expected inputs of 4 features, but got 5. .*num_features=5"):
        context.observe(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="Expected the first batch to have two rows or more, but got 1"):
        context.observe(torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"Expected `significance` to be a probability in \(0, 1\), but got 0"):
        ClusterContext(4, 3, significance=0)
    with pytest.raises(ValueError, match="Expected `level` to be a share .* but got 1"):
        HotellingContext(4, 3, context_dim=2, level=1)
    with pytest.raises(ValueError, match="Expected `context_dim` to be an integer from 1 to 4, but got 256"):
        HotellingContext(4, 3)
    hotelling = HotellingContext(4, 3, context_dim=4)
    with pytest.raises(ValueError, match="Expected inputs of 4 features, but got 5"):
        hotelling.observe(torch.zeros(2, 5))
    for found in (context, hotelling):
        with pytest.raises(ValueError, match="finite inputs, .* but got NaN, infinity or larger numbers in rows"):
            found.observe(torch.tensor([[0.0, 1.0, torch.nan, 0.0]] * 8))
        assert found.num_tasks == 0
    with pytest.raises(
        ValueError, match="more than 5 rows of 4 features for Hotelling's test, but got 2 and 2. Take a larger"
    ):
        hotelling_test(torch.randn(2, 4), torch.randn(2, 4))


@pytest.mark.parametrize("make", [ClusterContext, lambda *sizes: HotellingContext(*sizes, context_dim=FEATURES)])
def test_a_batch_too_small_to_be_tested_joins_the_nearest(make):
    """As the last one of an epoch may be."""
    context = make(FEATURES, 4)
    small = 1 if isinstance(context, ClusterContext) else 15
    shifts = [(15, 0.0), (small, 0.0), (64, 5.0), (small, 5.0), (small, 0.0)]
    assert [context.observe(correlated(rows, shift)) for rows, shift in shifts] == [0, 0, 1, 1, 0]


def test_a_single_row_joins_the_nearest_cluster_however_far():
    """It has no spread of its own to be tested by, so it founds none."""
    context = ClusterContext(FEATURES, 8)
    data = {task: [correlated(64, shift)] for task, shift in enumerate((0.0, 3.0, -3.0))}
    assert [context.observe(rows[0]) for rows in data.values()] == [0, 1, 2]
    for shift in (0.1, 2.0, -50.0):  # of clusters of equal spread, nearest by q is nearest
        row = torch.full((1, FEATURES), shift)
        nearest = min(range(3), key=lambda task: math.dist(row[0].tolist(), context.means[task].tolist()))
        assert context.observe(row) == nearest
        data[nearest].append(row)
    assert context.num_tasks == 3 and context.counts[:3].tolist() == [65, 65, 65]
    for task, rows in data.items():  # the cluster is that of all its rows
        torch.testing.assert_close(context.means[task], torch.cat(rows).mean(0))
        torch.testing.assert_close(context.spread[task], torch.cat(rows).var(0).sum(), rtol=1e-4, atol=0)


def test_an_offset_far_above_the_spread_founds_no_cluster():
    context = ClusterContext(FEATURES, 8)
    shifts = [1e4, 1e4, 1e4 + 3, 1e4, 1e4, 1e4 + 3]
    assert [context.observe(correlated(200, shift)) for shift in shifts] == [0, 0, 1, 0, 0, 1]
