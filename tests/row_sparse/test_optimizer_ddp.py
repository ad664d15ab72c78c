"""DendriteAdam in two processes: gradients are exchanged dense, the step is that of one process."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import distributed, nn

from dendrite_zoo.models import ActiveDendriteMLP
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.row_sparse import taken_rows as rows
from tests.processes import in_two

pytestmark = pytest.mark.slow
STEPS, BATCH = 5, 8


def make(winners):
    torch.manual_seed(0)
    return ActiveDendriteMLP(6, [16, 12], 3, context_dim=5, num_segments=4, activation_density=0.5, winners=winners)


def train(model, share=slice(None)):
    optimizer = DendriteAdam(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    contexts = [torch.randn(5, generator=generator), torch.tensor(2)]
    for step in range(STEPS):
        x, y = torch.randn(BATCH, 6, generator=generator), torch.randint(0, 3, (BATCH,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x[share], contexts[step % 3 == 2]), y[share]).backward()
        optimizer.step()


def process(rank, folder, winners):
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(make(winners))
    train(model, slice(rank, None, 2))
    torch.save(model.module.state_dict(), f"{folder}/{rank}.pt")
    distributed.barrier()  # a process whose partner has left, or whose gradients outlive the group, may hang at its end
    del model
    distributed.destroy_process_group()


@pytest.mark.parametrize("winners", ["activation", "context"])
def test_two_processes_train_as_one(winners, tmp_path, monkeypatch):
    in_two(process, tmp_path, winners)
    monkeypatch.setattr(rows, "_dense_needed", lambda device: True)
    model = make(winners)
    train(model)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, expected in model.state_dict().items():
        assert torch.equal(states[0][name], states[1][name])
        torch.testing.assert_close(states[0][name], expected, atol=1e-5, rtol=1e-4)
