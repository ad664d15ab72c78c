"""What a batch costs whose rows are in many contexts, one thread.

    python benchmarks/many_contexts.py [--rounds 15]

784-512-512-10, 10 segments, dense contexts of 784 numbers, batch 256, 5 % active. `DendriteAdam` against torch's fused
Adam on the same network; ``winners="context"`` with K contexts against one, in training, and in evaluation with
contexts that are new in each batch; tasks inferred from prototypes against one that is given; the memory of K = 256.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from harness import compare, dense_mlp, emit, in_turn, peak_bytes, rounds_asked, training_step
from torch import Tensor, nn

from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP
from dendrite_zoo.optim import DendriteAdam

NAME, BATCH, FEATURES, WIDTH = "many contexts", 256, 784, 512
SIZES = FEATURES, [WIDTH, WIDTH], 10


def network(winners: str, segments: int = 10) -> ActiveDendriteMLP:
    """The network of every case, the same weights each time."""
    torch.manual_seed(0)
    return ActiveDendriteMLP(*SIZES, context_dim=FEATURES, num_segments=segments, winners=winners)  # type: ignore[arg-type]


def contexts(count: int) -> Tensor | tuple[Tensor, Tensor]:
    """That many contexts, spread over a batch."""
    book = torch.randn(count, FEATURES)
    return book[0] if count == 1 else (book, torch.arange(BATCH) % count)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> Callable[[], None]:
    """A training step with so many contexts a batch."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(BATCH, FEATURES, generator=generator), torch.randint(10, (BATCH,), generator=generator)
    return training_step(model, optimizer, F.cross_entropy, y, x, contexts(count))  # type: ignore[arg-type]


def optimizers(rounds: int) -> None:
    """A step with the library's optimizer against the same with torch's."""
    for count in (1, 3, 10, 11, 64, 256):
        cases = {}
        for name in ("DendriteAdam", "fused Adam"):
            model = network("activation")
            fused = torch.optim.Adam(model.parameters(), fused=True)
            optimizer = DendriteAdam(model.parameters()) if name == "DendriteAdam" else fused
            cases[f"{name}, K = {count}"] = step(model, optimizer, count)
        compare(NAME, in_turn(cases, rounds), *cases, "<= 1.1")
    cases = {}
    for segments in (10, 100):
        model = network("activation", segments)
        cases[f"{segments} segments, one context"] = step(model, DendriteAdam(model.parameters()), 1)
    plain = dense_mlp(FEATURES, WIDTH, WIDTH, 10)
    x, y = torch.randn(BATCH, FEATURES), torch.randint(10, (BATCH,))
    cases["dense MLP"] = training_step(plain, torch.optim.Adam(plain.parameters(), fused=True), F.cross_entropy, y, x)
    seconds = in_turn(cases, rounds)
    for name in list(cases)[:2]:
        compare(NAME, seconds, name, "dense MLP", "<= 1.15")


def subnetworks(rounds: int) -> None:
    """Winners chosen by the context: K contexts a batch against one."""
    cases = {}
    for count in (1, 10, 64, 256):
        model = network("context")
        cases[f"train, K = {count}"] = step(model, DendriteAdam(model.parameters()), count)
    seconds = in_turn(cases, rounds)
    for count, target in ((10, "<= 1.6"), (64, None), (256, "<= 6")):
        compare(NAME, seconds, f"train, K = {count}", "train, K = 1", target)
    model, x = network("context").eval(), torch.randn(BATCH, FEATURES)
    segments = [layer.segments.flatten(0, 1) for layer in model.hidden]

    def unseen(count: int) -> None:
        model(x, contexts(count))

    def bare() -> None:
        book, _ = contexts(256)
        for rows in segments:
            strength = (book @ rows.T).unflatten(1, (WIDTH, -1)).abs().amax(-1)
            strength.topk(round(0.05 * WIDTH))

    with torch.no_grad():
        cases = {
            "evaluate, 256 unseen contexts": lambda: unseen(256),
            "evaluate, one unseen context": lambda: unseen(1),
            "bare product and top-k of 256": bare,
        }
        seconds = in_turn(cases, rounds)
    compare(NAME, seconds, *list(cases)[:2], "<= 25")
    compare(NAME, seconds, list(cases)[0], list(cases)[2])


def inference(rounds: int) -> None:
    """Tasks inferred, rows mixed, against one task that is given."""
    for tasks in (50, 200, 1000):
        torch.manual_seed(0)
        model = ActiveDendriteClassifier(*SIZES, max_tasks=tasks, num_segments=10, winners="context").eval()
        means = torch.randn(tasks, FEATURES)
        for task, mean in enumerate(means):
            model.context.start_task(task, [mean + 0.1 * torch.randn(4, FEATURES)])
        x = means[torch.arange(BATCH) * 7 % tasks] + 0.1 * torch.randn(BATCH, FEATURES)
        with torch.no_grad():
            cases = {
                f"{tasks} tasks, mixed and inferred": partial(model, x),
                f"one of {tasks} tasks, given": partial(model, x, task=0),
            }
            compare(NAME, in_turn(cases, rounds), *cases, "<= 8" if tasks == 1000 else None)


def memory() -> None:
    """The most that a training step allocates at once, with 256 contexts and in a dense MLP."""
    parts, plain = network("context"), dense_mlp(FEATURES, WIDTH, WIDTH, 10)
    x, y = torch.randn(BATCH, FEATURES), torch.randint(10, (BATCH,))
    adam = torch.optim.Adam(plain.parameters(), fused=True)
    steps = {
        "K = 256": step(parts, DendriteAdam(parts.parameters()), 256),
        "dense MLP": training_step(plain, adam, F.cross_entropy, y, x),
    }
    peaks = {}
    for name, case in steps.items():
        for _ in range(3):
            case()
        peaks[name] = peak_bytes(case)
    value = peaks["K = 256"] / peaks["dense MLP"]
    megabytes = {name: round(peak / 2**20, 2) for name, peak in peaks.items()}
    emit(NAME, "memory of a step, K = 256 / of a dense MLP of that width", value, "<= 1", megabytes=megabytes)


def main() -> None:
    """Print a line for each comparison."""
    rounds = rounds_asked(__doc__)
    torch.set_num_threads(1)
    optimizers(rounds)
    subnetworks(rounds)
    inference(rounds)
    memory()


if __name__ == "__main__":
    main()
