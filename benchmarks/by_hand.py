"""What the aims that were missed cost where the same is written by hand, for these sizes alone, one thread.

    python benchmarks/by_hand.py [--rounds 15]

Each line has the denominator of a line of `many_contexts.py`, whose name is its ``of``; ``does``
says what is computed in the place of the library's part. It is no more than has to be, so the ratio is a floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from harness import compare, dense_mlp, emit, in_turn, peak_bytes, rounds_asked, training_step
from many_contexts import BATCH, FEATURES, SIZES, WIDTH, network, step
from torch import Tensor, nn

from dendrite_zoo.models import ActiveDendriteClassifier

NAME, ACTIVE = "by hand", round(0.05 * WIDTH)


def fused_adam(module: nn.Module) -> torch.optim.Optimizer:
    """Torch's."""
    return torch.optim.Adam(module.parameters(), fused=True)


def resting_rows(rounds: int) -> None:
    """Torch's Adam, given which rows of segments rest: these are set aside before the step, and put back after it."""
    count, cases = 64, {}
    for name in ("by hand", "fused Adam"):
        model = network("activation")
        adam = fused_adam(model)
        plain = step(model, adam, count)
        plain()
        segments = [layer.segments for layer in model.hidden]
        resting = [(p.grad == 0).flatten(2).all(-1).flatten().nonzero().squeeze(1) for p in segments]

        def put_back(plain=plain, adam=adam, segments=segments, resting=resting) -> None:
            tensors = [(p.detach(), adam.state[p]["exp_avg"], adam.state[p]["exp_avg_sq"]) for p in segments]
            rows = [(t.view(-1, FEATURES), ids) for each, ids in zip(tensors, resting, strict=True) for t in each]
            aside = [t.index_select(0, ids) for t, ids in rows]
            plain()
            for (t, ids), values in zip(rows, aside, strict=True):
                t.index_copy_(0, ids, values)

        cases[f"{name}, K = {count}"] = put_back if name == "by hand" else plain
    does = "torch's fused Adam; rows at rest, given which they are, are set aside and put back"
    of = f"DendriteAdam, K = {count} / fused Adam, K = {count}"
    compare(NAME, in_turn(cases, rounds), *cases, of=of, does=does)


class Won(nn.Module):
    """A dense layer with k-winners, gated by one row of segments for each unit, the ones that won."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear, self.won = nn.Linear(inputs, WIDTH), nn.Parameter(torch.randn(WIDTH, FEATURES) / FEATURES)
        self.context = torch.randn(FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows."""
        y = self.linear(x) * torch.sigmoid(self.won @ self.context)
        values, index = y.topk(ACTIVE, sorted=False)
        return torch.zeros_like(y).scatter(1, index, values)


def segments_that_won(rounds: int) -> None:
    """A dense MLP, and the segments that won as small dense tensors, beside the dense MLP alone."""
    x, y = torch.randn(BATCH, FEATURES), torch.randint(10, (BATCH,))
    won = nn.Sequential(Won(FEATURES), Won(WIDTH), nn.Linear(WIDTH, 10))
    plain = dense_mlp(FEATURES, WIDTH, WIDTH, 10)
    cases = {
        "by hand": training_step(won, fused_adam(won), F.cross_entropy, y, x),
        "dense MLP": training_step(plain, fused_adam(plain), F.cross_entropy, y, x),
    }
    does = "the segments that won are given, as dense tensors beside the weights; gates, k-winners, fused Adam"
    of = "10 segments, one context / dense MLP"
    compare(NAME, in_turn(cases, rounds), *cases, of=of, does=does)


class Apart(nn.Module):
    """Small networks with weights of their own, in one product."""

    def __init__(self, count: int) -> None:
        super().__init__()
        sizes = [(FEATURES, ACTIVE), (ACTIVE, ACTIVE), (ACTIVE, 10)]
        self.weights = nn.ParameterList(torch.randn(count, o, i) / math.sqrt(i) for i, o in sizes)
        self.biases = nn.ParameterList(torch.zeros(count, 1, o) for _, o in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows ``(count, rows, features)``."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = torch.baddbmm(bias, x.relu(), weight.transpose(1, 2))
        return x.flatten(0, 1)


def networks_apart(rounds: int) -> None:
    """Ten contexts as ten small networks, which share nothing, beside one network of that size."""
    cases = {}
    for count in (10, 1):
        rows = math.ceil(BATCH / count)
        nets, y = Apart(count), torch.randint(10, (count * rows,))
        cases[f"by hand, K = {count}"] = training_step(
            nets, fused_adam(nets), F.cross_entropy, y, torch.randn(count, rows, FEATURES)
        )
    does = "small dense networks that share no weights, in one baddbmm, fused Adam"
    compare(NAME, in_turn(cases, rounds), *cases, of="train, K = 10 / train, K = 1", does=does)


def nearest_prototype(rounds: int) -> None:
    """The distances from a batch to 1000 prototypes alone, beside one task that is given."""
    tasks = 1000
    model = ActiveDendriteClassifier(*SIZES, max_tasks=tasks, num_segments=10, winners="context").eval()
    prototypes, x = torch.randn(tasks, FEATURES), torch.randn(BATCH, FEATURES)
    for task, mean in enumerate(prototypes):
        model.context.start_task(task, [mean.expand(2, -1)])
    sizes = prototypes.square().sum(1)
    given = f"one of {tasks} tasks, given"
    with torch.no_grad():
        cases = {
            "by hand": lambda: torch.addmm(sizes, x, prototypes.T, alpha=-2).argmin(1),
            given: lambda: model(x, task=0),
        }
        does = "one product of the images and the prototypes, and argmin; no network"
        compare(NAME, in_turn(cases, rounds), *cases, of=f"{tasks} tasks, mixed and inferred / {given}", does=does)


def memory() -> None:
    """A context a row, written with plain operations: the first layer as a whole, parts of the second gathered."""
    plain, x, y = dense_mlp(FEATURES, WIDTH, WIDTH, 10), torch.randn(BATCH, FEATURES), torch.randint(10, (BATCH,))
    net = dense_mlp(FEATURES, WIDTH, WIDTH, 10)
    first, second, output = (layer for layer in net if isinstance(layer, nn.Linear))
    units = [torch.stack([torch.randperm(WIDTH)[:ACTIVE] for _ in range(BATCH)]) for _ in range(2)]
    ids = units[1].unsqueeze(2) * WIDTH + units[0].unsqueeze(1)

    def forward(x: Tensor) -> Tensor:
        x = first(x).gather(1, units[0]).relu().unsqueeze(2)
        weight = second.weight.view(-1).index_select(0, ids.view(-1)).view(ids.shape)
        x = torch.baddbmm(second.bias[units[1]].unsqueeze(2), weight, x).squeeze(2).relu()
        return output(x.new_zeros(BATCH, WIDTH).scatter(1, units[1], x))

    def by_hand() -> None:
        adam.zero_grad()
        F.cross_entropy(forward(x), y).backward()
        adam.step()

    adam = fused_adam(net)
    steps: dict[str, Callable[[], None]] = {
        "by hand": by_hand,
        "dense MLP": training_step(plain, fused_adam(plain), F.cross_entropy, y, x),
    }
    peaks = {}
    for name, case in steps.items():
        for _ in range(3):
            case()
        peaks[name] = peak_bytes(case)
    does = "the first layer as a whole, the parts of the second gathered, dense gradients; no masks"
    of = "memory of a step, K = 256 / of a dense MLP of that width"
    value = peaks["by hand"] / peaks["dense MLP"]
    megabytes = {name: round(peak / 2**20, 2) for name, peak in peaks.items()}
    emit(NAME, "memory: by hand / dense MLP", value, of=of, does=does, megabytes=megabytes)


def main() -> None:
    """Print a line for each aim."""
    rounds = rounds_asked(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    resting_rows(rounds)
    segments_that_won(rounds)
    networks_apart(rounds)
    nearest_prototype(rounds)
    memory()


if __name__ == "__main__":
    main()
