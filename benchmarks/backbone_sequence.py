"""Data sets learned one after another by a frozen backbone with dendrites, and by what one does otherwise.

    python benchmarks/backbone_sequence.py MIRROR [--seeds 0] [--epochs 3] [--out results/backbone-sequence.json]

MIRROR holds copies of repositories of the Hub: ``datasets/ylecun/mnist``, ``datasets/zalando-datasets/fashion_mnist``,
``datasets/local/omniglot-8-alphabets`` and ``models/local/resnet20-cifar10``, a ResNet-20 that was trained on CIFAR-10.
MNIST, Fashion-MNIST and the 242 letters of Omniglot, 32 x 32, one after another, labels from 0 in each, 2,000 training
and 1,000 test images a task. Learning rates are those of a sketch on other data sets. The defaults of the ridge head
and context were chosen on test images of these data sets: their rows flatter a little.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from dendrite_zoo import add_dendrites
from dendrite_zoo.records import ResultRecord, merge_seeds, write_records

TASKS = {
    "mnist": "datasets/ylecun/mnist",
    "fashion-mnist": "datasets/zalando-datasets/fashion_mnist",
    "omniglot": "datasets/local/omniglot-8-alphabets",
}
TRAIN, TEST, BATCH = 2000, 1000, 64
MEAN, STD = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class Task(NamedTuple):
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


# ---- data and network


def read(folder: Path, split: str, most: int, rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """Images ``(N, 3, 32, 32)``, bright on dark, as the network knows them, and labels."""
    (file,) = sorted(folder.rglob(f"*{split}*.parquet"))
    columns = pq.read_table(file, columns=["image", "label"]).to_pydict()
    chosen = rng.permutation(len(columns["label"]))[:most]
    images = (Image.open(io.BytesIO(columns["image"][i]["bytes"])).convert("L").resize((32, 32), 2) for i in chosen)
    x = torch.from_numpy(np.stack([np.asarray(image) for image in images])).float()[:, None] / 255
    x = 1 - x if "omniglot" in str(folder) else x
    return (x.expand(-1, 3, -1, -1) - MEAN) / STD, torch.tensor(columns["label"])[torch.from_numpy(chosen)]


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.more = (1 if inputs == outputs else 2), (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x if self.stride == 1 else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
        return F.relu(y + shortcut)


class ResNet20(nn.Module):
    """He et al. 2015, for images of 32 x 32, with shortcuts without parameters; the mean of its last stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        sizes = ((16, 16), (16, 32), (32, 64))
        stages = [nn.Sequential(Block(i, o), Block(o, o), Block(o, o)) for i, o in sizes]
        self.layer1, self.layer2, self.layer3 = stages

    def forward(self, x: Tensor) -> Tensor:
        return self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))).mean((2, 3))


def backbone(mirror: Path) -> ResNet20:
    network = ResNet20()
    state = load_file(mirror / "models/local/resnet20-cifar10/model.safetensors")
    network.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("linear")})
    return network


# ---- learning


def batches(task: Task) -> list[tuple[Tensor, Tensor]]:
    return list(zip(task.x.split(500), task.y.split(500), strict=True))


def fit(network: nn.Module, output: Callable[[Tensor], Tensor], task: Task, epochs: int, lr: float) -> None:
    """Train what requires a gradient, by Adam whose learning rate falls to 0."""
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=lr)
    steps = epochs * -(-len(task.x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(task.x)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(output(task.x[rows]), task.y[rows]).backward()
            optimizer.step()
            schedule.step()
    network.eval()


@torch.no_grad()
def accuracy(output: Callable[[Tensor], Tensor], task: Task) -> float:
    found = [output(x).argmax(1) for x in task.x_test.split(500)]
    return float((torch.cat(found) == task.y_test).double().mean())


Result = dict[str, Any]


def dendrites(network: nn.Module, tasks: list[Task], epochs: int, *, train: bool, shift: bool = False) -> Result:
    """Gates (and shifts) trained a task, with its linear head, then a ridge head; what it reaches with each."""
    model = add_dendrites(network, layers=nn.BatchNorm2d, num_classes=classes(tasks), max_tasks=len(tasks), shift=shift)
    linear, before = [], []
    for number, task in enumerate(tasks):
        model.start_task(number, task.x.split(500))
        if train:
            fit(model, lambda x, t=number: model(x, task=t), task, epochs, model.default_lr)
            linear.append(accuracy(lambda x, t=number: model(x, task=t), task))
        model.fit_head(number, batches(task))
        model.eval()
        before.append(outputs(model, task, number))
    after = [outputs(model, task, number) for number, task in enumerate(tasks)]
    with torch.no_grad():
        found = [torch.cat([model.context.infer(x) for x in task.x_test.split(500)]) for task in tasks]
    inferred = [outputs(model, task, ids) for task, ids in zip(tasks, found, strict=True)]
    right = [ids == number for number, ids in enumerate(found)]
    return {
        "linear": linear,
        "given": [share_right(*pair) for pair in zip(after, tasks, strict=True)],
        "inferred": [share_right(*pair) for pair in zip(inferred, tasks, strict=True)],
        "more": {
            "task_inferred": [float(one.double().mean()) for one in right],
            "task_inferred_mean": float(torch.cat(right).double().mean()),
            "largest_change_of_earlier_outputs": max(
                float((a - b).abs().max()) for a, b in zip(before, after, strict=True)
            ),
            "gates_per_task": sum(model.config["layers"].values()) * (1 + shift) if train else 0,
            "trained_per_task": model.column.numel() if train else 0,
        },
    }


@torch.no_grad()
def outputs(model: nn.Module, task: Task, number: int | Tensor) -> Tensor:
    """Logits of the test images, in the task of this number, or of each image."""
    numbers = torch.as_tensor(number).expand(len(task.x_test))
    return torch.cat([model(x, task=ids) for x, ids in zip(task.x_test.split(500), numbers.split(500), strict=True)])


def share_right(logits: Tensor, task: Task) -> float:
    return float((logits.argmax(1) == task.y_test).double().mean())


def classes(tasks: list[Task]) -> int:
    return 1 + max(int(task.y.max()) for task in tasks)


def probe(network: nn.Module, tasks: list[Task], epochs: int) -> list[float]:
    """A linear head a task on the network's own output, trained for ten times as many epochs."""
    network.eval()
    found = []
    for task in tasks:
        with torch.no_grad():
            x, x_test = (torch.cat([network(x) for x in part.split(500)]) for part in (task.x, task.x_test))
        head = nn.Linear(64, classes(tasks))
        rows = Task(x, task.y, x_test, task.y_test)
        fit(head, head, rows, 10 * epochs, 5e-3)
        found.append(accuracy(head, rows))
    return found


def fine_tuned(mirror: Path, tasks: list[Task], epochs: int) -> tuple[list[float], list[float]]:
    """Accuracy of a copy of the network a task, and of one that learns task after task with one head."""
    alone, one = [], None
    for task in tasks:
        copied = nn.Sequential(backbone(mirror), nn.Linear(64, classes(tasks)))
        fit(copied, copied, task, epochs, 1e-3)
        alone.append(accuracy(copied, task))
        if one is None:
            one = copied  # which has learned the first task
        else:
            fit(one, one, task, epochs, 1e-3)
    assert one is not None
    return alone, [accuracy(one, task) for task in tasks]


def run(mirror: Path, seed: int, epochs: int) -> Iterator[ResultRecord]:
    """All methods with one seed."""
    rng = np.random.RandomState(seed)
    pairs = [(read(mirror / f, "train", TRAIN, rng), read(mirror / f, "test", TEST, rng)) for f in TASKS.values()]
    tasks = [Task(*train, *test) for train, test in pairs]

    def made(method: str, context: str, accuracies: list[float], started: float, **more: Any) -> ResultRecord:
        print(f"{method}, {context}: {[round(a, 4) for a in accuracies]}", more, flush=True)
        return ResultRecord.from_run(
            accuracies,
            seed=seed,
            benchmark="-".join(TASKS),
            method=method,
            context_at_test=context,
            command="python benchmarks/backbone_sequence.py MIRROR",
            wall_time_s=round(time.process_time() - started, 1),
            config={"method": method, "epochs": epochs, "train": TRAIN},
            **more,
        )

    def start() -> float:
        torch.manual_seed(seed)
        return time.process_time()

    begun = start()
    alone = dendrites(backbone(mirror), tasks, epochs, train=False)
    for context in ("given", "inferred"):
        yield made("ridge alone", context, alone[context], begun, **alone["more"])
    begun = start()
    ours = dendrites(backbone(mirror), tasks, epochs, train=True)
    yield made("gates, linear head", "given", ours["linear"], begun, **ours["more"])
    for context in ("given", "inferred"):
        yield made("gates, then ridge", context, ours[context], begun, **ours["more"])
    begun = start()
    copies, sequence = fine_tuned(mirror, tasks, epochs)
    numbers = sum(p.numel() for p in backbone(mirror).parameters()) + 65 * classes(tasks)
    yield made("a fine-tuned copy a task", "given", copies, begun, trained_per_task=numbers)
    yield made("fine-tuned one after another", "none", sequence, begun, trained_per_task=numbers)
    begun = start()
    probed = probe(backbone(mirror), tasks, epochs)
    yield made("linear probe", "given", probed, begun, trained_per_task=65 * classes(tasks))
    begun = start()
    film = dendrites(backbone(mirror), tasks, epochs, train=True, shift=True)
    yield made("gates and shifts, linear head", "given", film["linear"], begun, **film["more"])
    for context in ("given", "inferred"):
        yield made("gates and shifts, then ridge", context, film[context], begun, **film["more"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mirror", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/backbone-sequence.json"))
    options = parser.parse_args()
    done: list[ResultRecord] = []
    for seed in options.seeds:
        for one in run(options.mirror, seed, options.epochs):
            done.append(one)
            write_records(merge_seeds(done), options.out)  # what was won is not lost


if __name__ == "__main__":
    main()
