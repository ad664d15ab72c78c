"""Data sets learned one after another by a frozen backbone with dendrites, and by what one does otherwise.

    python benchmarks/backbone_sequence.py WEIGHTS [--backbone resnet20] [--seeds 0 1] [--methods ...]

WEIGHTS is the ``model.safetensors`` of a backbone: ``resnet20``, a ResNet-20 trained on CIFAR-10, for images of
32 x 32, or timm's ``tf_efficientnet_lite0``, of ImageNet, here for 64 x 64. MNIST, Fashion-MNIST, the 242 letters of
Omniglot and UCI's digits, one after another, labels from 0 in each: 5,000 training and 2,000 test images a task, as far
as there are so many. Three passes, and of the small sets more: twenty over Omniglot's 3,630 images, ten over 1,438
digits. Learning rates are those of a sketch on other data sets, and nothing was chosen here.

``lora`` and ``ia3`` are PEFT's, on all convolutions, with a linear head, a set a task; batch norms stay in eval mode.
They need ``pip install peft``, and ``efficientnet`` needs timm.

Each method is written to the file of its seed when it ends, and is not run again; the records of all seeds are merged.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from peft_adapters import KINDS, inject
from resnet20 import resnet20
from torch import Tensor, nn

from dendrite_zoo import add_dendrites
from dendrite_zoo.records import ResultRecord, merge_seeds, read_records, write_records
from dendrite_zoo.streams import load_source

PASSES = {"mnist": 3, "fashion-mnist": 3, "omniglot": 20, "digits": 10}
TRAIN, TEST, BATCH = 5000, 2000, 64
FIRST = 250  # test images of a task, with the task inferred: a sample that is soon measured again
ADAPTER_RATE = 5e-3  # as that of gates
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation, by which images are normalised
HALVES = ((0.5,) * 3,) * 2


class Task(NamedTuple):
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    passes: int


# ---- data and network


def read(name: str, side: int, rng: np.random.RandomState, normalised: Any = IMAGENET) -> Task:
    """Images ``(N, 3, side, side)``, bright on dark, and labels, of a random part of a data set."""
    source, (mean, std) = load_source(name), torch.tensor(normalised)[..., None, None]
    shape, bright = source.image_shape, 16.0 if name == "digits" else 255.0
    parts: list[Tensor] = []
    for x, y, most in ((source.x_train, source.y_train, TRAIN), (source.x_test, source.y_test, TEST)):
        rows = torch.from_numpy(rng.permutation(len(y))[:most])
        images = F.interpolate(x[rows].float().view(-1, *shape) / bright, (side, side), mode="bilinear")
        parts += [(images.expand(-1, 3, -1, -1) - mean) / std, y[rows]]
    return Task(*parts, PASSES[name])


def efficientnet(weights: Path) -> nn.Module:
    import timm

    overlay = {"file": str(weights)}
    name = "tf_efficientnet_lite0.in1k"
    network: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
    return network.to(memory_format=torch.channels_last)  # a third faster


BACKBONES: dict[str, tuple[Callable[[Path], nn.Module], int, int, Any, type[nn.Module], str]] = {
    "resnet20": (resnet20, 64, 32, IMAGENET, nn.BatchNorm2d, "github.com/akamaster/pytorch_resnet_cifar10@d5489e8"),
    "efficientnet": (efficientnet, 1280, 64, HALVES, nn.Conv2d, "timm/tf_efficientnet_lite0.in1k"),
}
"""How it is built, its features, the side and scale of its images, the layers with gates, and where it is from."""
DEFAULT = "resnet20"


# ---- learning


def batches(task: Task) -> list[tuple[Tensor, Tensor]]:
    return list(zip(task.x.split(500), task.y.split(500), strict=True))


def fit(network: nn.Module, output: Callable[[Tensor], Tensor], task: Task, lr: float) -> None:
    """Train what requires a gradient, by Adam whose learning rate falls to 0."""
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=lr)
    steps = task.passes * -(-len(task.x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(task.passes):
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


def classes(tasks: list[Task]) -> int:
    return 1 + max(int(task.y.max()) for task in tasks)


def trainable(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


class Case(NamedTuple):
    """What a method is given, and where it writes."""

    make: Callable[[], nn.Module]
    features: int
    layers: type[nn.Module]
    tasks: list[Task]
    folder: Path
    name: str
    context: str


class Found(NamedTuple):
    method: str
    context: str
    accuracies: list[float]
    more: dict[str, Any]


def dendrites(case: Case, *, train: bool, shift: bool = False) -> list[Found]:
    """Gates (and shifts) trained a task, with its linear head, then a ridge head; what it reaches with each."""
    tasks = case.tasks
    sizes = [classes([task]) for task in tasks]
    options = {"num_classes": sizes, "max_tasks": len(tasks), "context": case.context, "name": case.name}
    model = add_dendrites(case.make(), layers=case.layers, shift=shift, **options)
    linear, before, seconds = [], [], 0.0
    for number, task in enumerate(tasks):
        started = time.process_time()
        model.start_task(number, task.x.split(500))
        if train:
            fit(model, lambda x, t=number: model(x, task=t), task, model.default_lr)
            seconds += time.process_time() - started
            linear.append(accuracy(lambda x, t=number: model(x, task=t), task))
            started = time.process_time()
        model.fit_head(number, batches(task))
        seconds += time.process_time() - started
        model.eval()
        before.append(outputs(model, task, number))
        print(f"  task {number}: linear {linear[-1:]}, ridge {share_right(before[-1], task):.4f}", flush=True)
    after = [outputs(model, task, number) for number, task in enumerate(tasks)]
    with torch.no_grad():
        found = [torch.cat([model.context.infer(x) for x in task.x_test.split(500)]) for task in tasks]
    inferred = [outputs(model, task, ids) for task, ids in zip(tasks, found, strict=True)]
    right = [(ids == number).double() for number, ids in enumerate(found)]
    given, unknown = ([share_right(*pair) for pair in zip(x, tasks, strict=True)] for x in (after, inferred))
    changes = [float((a - b).abs().max()) for a, b in zip(before, after, strict=True)]
    gates = sum(model.config["layers"].values()) * (1 + shift) if train else 0
    more = {
        "task_inferred": [float(one.mean()) for one in right],
        "task_inferred_mean": float(torch.cat(right).mean()),
        "largest_change_of_earlier_outputs": max(changes),
        "forgetting_inferred": max(0.0, float(np.mean(given) - np.mean(unknown))),
        "seconds_to_learn": round(seconds, 1),
        "sees_gates": [train and model.sees_gates(number) for number in range(len(tasks))],
        "first_right": [share_right(logits[:FIRST], task) for logits, task in zip(inferred, tasks, strict=True)],
        "gates_per_task": gates,
        "trained_per_task": [gates + (model.heads.num_means + 1) * own * train for own in sizes],
    }
    name = "gates and shifts" if shift else "gates" if train else "ridge alone"
    model.save_pretrained(case.folder / name.replace(" ", "-"))
    if not train:
        return [Found(name, "given", given, more), Found(name, "inferred", unknown, more)]
    return [
        Found(f"{name}, linear head", "given", linear, more),
        Found(f"{name}, then ridge", "given", given, more),
        Found(f"{name}, then ridge", "inferred", unknown, more),
    ]


@torch.no_grad()
def outputs(model: nn.Module, task: Task, number: int | Tensor) -> Tensor:
    """Logits of the test images, in the task of this number, or of each image."""
    numbers = torch.as_tensor(number).expand(len(task.x_test))
    return torch.cat([model(x, task=ids) for x, ids in zip(task.x_test.split(500), numbers.split(500), strict=True)])


def share_right(logits: Tensor, task: Task) -> float:
    return float((logits.argmax(1) == task.y_test[: len(logits)]).double().mean())


def probe(case: Case) -> list[Found]:
    """A linear head a task on the network's own output, trained for ten times as many passes."""
    network, found, trained = case.make().eval().requires_grad_(False), list[float](), list[int]()
    for task in case.tasks:
        x, x_test = (torch.cat([network(x) for x in part.split(500)]) for part in (task.x, task.x_test))
        mean, std = x.mean(0), x.std(0).clamp(min=1e-3)
        rows = Task((x - mean) / std, task.y, (x_test - mean) / std, task.y_test, 10 * task.passes)
        head = nn.Linear(case.features, classes([task]))
        fit(head, head, rows, 5e-3)
        found.append(accuracy(head, rows))
        trained.append(trainable(head))
    return [Found("linear probe", "given", found, {"trained_per_task": trained})]


def fine_tuned(case: Case, *, one: bool) -> list[Found]:
    """A copy of the network a task, with a head of its own; or one that learns task after task, with one head."""
    found, trained, network = list[float](), list[int](), None
    for task in case.tasks:
        if network is None or not one:
            network = nn.Sequential(case.make(), nn.Linear(case.features, classes(case.tasks if one else [task])))
        fit(network, network, task, 1e-3)
        found.append(accuracy(network, task))
        trained.append(trainable(network))
        print(f"  {found[-1]:.4f}", flush=True)
    assert network is not None
    more: dict[str, Any] = {"trained_per_task": trained}
    if not one:
        return [Found("a fine-tuned copy a task", "given", found, more)]
    more["when_learned"] = found
    return [Found("fine-tuned one after another", "none", [accuracy(network, task) for task in case.tasks], more)]


def adapters(case: Case, kind: str) -> list[Found]:
    """A set of PEFT's adapters a task, with a linear head."""
    found, trained = list[float](), list[int]()
    for task in case.tasks:
        network = nn.Sequential(inject(case.make(), kind), nn.Linear(case.features, classes([task])))
        fit(network, network, task, ADAPTER_RATE)
        found.append(accuracy(network, task))
        trained.append(trainable(network))
        print(f"  {found[-1]:.4f}", flush=True)
    return [Found(KINDS[kind], "given", found, {"trained_per_task": trained})]


METHODS: dict[str, Callable[[Case], list[Found]]] = {
    "ridge": lambda case: dendrites(case, train=False),
    "gates": lambda case: dendrites(case, train=True),
    "copies": lambda case: fine_tuned(case, one=False),
    "probe": probe,
    "one": lambda case: fine_tuned(case, one=True),
    "shifts": lambda case: dendrites(case, train=True, shift=True),
    **{kind: partial(adapters, kind=kind) for kind in KINDS},
}


def run(case: Case, method: str, seed: int, names: list[str], config: dict[str, Any]) -> list[ResultRecord]:
    """One method with one seed."""
    torch.manual_seed(seed)
    started, records = time.process_time(), list[ResultRecord]()
    options = "" if config["backbone"] == DEFAULT else f"--backbone {config['backbone']} "
    for found in METHODS[method](case):
        one = ResultRecord.from_run(
            found.accuracies,
            seed=seed,
            benchmark="-".join(names),
            method=found.method,
            context_at_test=found.context,
            command=f"python benchmarks/backbone_sequence.py WEIGHTS {options}--methods {method} --seeds {seed}",
            wall_time_s=round(time.process_time() - started, 1),
            tasks=names,
            config={"method": found.method, "train": TRAIN, "passes": [t.passes for t in case.tasks], **config},
            **found.more,
        )
        print(f"{found.method}, {found.context}: {one.average_accuracy:.4f}", found.accuracies, found.more, flush=True)
        records.append(one)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--backbone", choices=BACKBONES, default=DEFAULT)
    parser.add_argument("--tasks", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--context", choices=["ridge", "prototype"], default="ridge")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/backbone-sequence"))
    parser.add_argument("--out", type=Path, help="by default results/backbone-sequence.json, or ...-efficientnet.json")
    options = parser.parse_args()
    more = "" if options.backbone == DEFAULT else f"-{options.backbone}"
    out = options.out or Path("results", f"backbone-sequence{more}.json")
    make, features, side, scale, layers, name = BACKBONES[options.backbone]
    for seed in options.seeds:
        rng, folder = np.random.RandomState(seed), options.runs / f"{options.backbone}-{seed}"
        tasks = [read(task, side, rng, scale) for task in options.tasks]
        case = Case(lambda: make(options.weights), features, layers, tasks, folder, name, options.context)
        for method in options.methods:
            if not (file := folder / f"{method}.json").is_file():
                config = {"backbone": options.backbone, "context": options.context}
                write_records(run(case, method, seed, options.tasks, config), file)
    files = [file for method in METHODS for file in sorted(options.runs.glob(f"{options.backbone}-*/{method}.json"))]
    write_records(merge_seeds(record for file in files for record in read_records(file)), out)


if __name__ == "__main__":
    main()
