"""What a step allocates at once whose rows are in many contexts, beside one of the same layers computed as a whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dendrite_zoo.models import ActiveDendriteMLP
from dendrite_zoo.optim import DendriteAdam
from tests.memory import peak_bytes

ROWS, FEATURES, WIDTH = 64, 96, 256


def test_the_most_that_is_allocated_at_once():
    assert peak_bytes(lambda: torch.zeros(100)) == 400
    assert peak_bytes(lambda: [torch.zeros(100) for _ in range(3)]) == 1200
    assert peak_bytes(lambda: [None for _ in range(3) if torch.zeros(100) is None]) == 400


@pytest.mark.parametrize(("contexts", "limit"), [(1, 0.5), (8, 1.0), (ROWS, 1.2)])
def test_many_contexts_take_about_as_much_as_the_whole_layers(contexts, limit):
    def peak(winners, segments):
        torch.manual_seed(0)
        sizes = FEATURES, [WIDTH, WIDTH], 10
        model = ActiveDendriteMLP(*sizes, context_dim=FEATURES, num_segments=segments, winners=winners)
        optimizer = DendriteAdam(model.parameters())
        x, y = torch.randn(ROWS, FEATURES), torch.randint(10, (ROWS,))
        context = torch.randn(contexts, FEATURES), torch.arange(ROWS) % contexts

        def step():
            optimizer.zero_grad()
            F.cross_entropy(model(x, context), y).backward()
            optimizer.step()

        for _ in range(2):
            step()
        return peak_bytes(step)

    assert peak("context", 5) <= limit * peak("activation", 0)
