"""Streams of real data, learned one after another: what forgets, and what need not be trained at all.

    python benchmarks/real_data.py [--seeds 0 1 2] [--streams split-mnist ...] [--methods ridge ...] [--weights FILE]

Class-incremental: split MNIST, split Fashion-MNIST (five times two classes), split Omniglot (eleven times 22 letters),
split Banking77 (seven times eleven intents, hashed n-grams), no task given. Domain-incremental: Fashion-MNIST rotated,
blurred and faded (five domains of 6,000 training images each, labels shared). With ``--weights``, those of a ResNet-20
that was trained on CIFAR-10, Fashion-MNIST and Omniglot are learned from features of this frozen backbone, too: the
means of its three stages. One pass over the data of each task, but for the trained networks on Omniglot and Banking77,
which take twenty.

*mean*: the nearest mean of a class, in pixels. *ridge*: `RidgeClassifier` by its defaults. *naive*, *replay*, *SI*,
*EWC*: an MLP of 2 x 256 units by Adam, alone, with 500 remembered rows, or with a penalty. *dendrites, ...*: a network
whose winners the context chooses, the task found by the nearest prototype or by `RidgeContext`.

Each run is written to the file of its seed when it ends, and is not done again; the records of all seeds are merged.
"""

import argparse
import logging
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from backbone_sequence import IMAGENET
from harness import QUIET
from lightning.pytorch import Callback, Trainer, seed_everything
from resnet20 import resnet20
from torch import Tensor, nn

from dendrite_zoo.callbacks import ElasticWeightConsolidation, ForgettingLogger, SynapticIntelligence
from dendrite_zoo.contexts import PrototypeContext
from dendrite_zoo.lightning_modules import ContinualClassifier, ReplayClassifier
from dendrite_zoo.models import ActiveDendriteClassifier, RidgeClassifier
from dendrite_zoo.records import ResultRecord, merge_seeds, read_records, write_records
from dendrite_zoo.streams import BlurredTasks, ContrastTasks, RotatedTasks, SplitTasks, TaskStream, load_source

SPLITS = {"mnist": 5, "fashion-mnist": 5, "omniglot": 11, "banking77": 7}
BACKBONE = "-resnet20"
OF_BACKBONE = {f"{name}{BACKBONE}": SPLITS[name] for name in ("fashion-mnist", "omniglot")}
DOMAINS: dict[str, type[TaskStream]] = {"rotated": RotatedTasks, "blurred": BlurredTasks, "contrast": ContrastTasks}
STREAMS = [*(f"split-{name}" for name in (*SPLITS, *OF_BACKBONE)), *(f"{name}-fashion-mnist" for name in DOMAINS)]
METHODS = ["mean", "ridge", "naive", "replay", "SI", "EWC", "dendrites, prototypes", "dendrites, ridge"]
LEARNING_RATE = 1e-3
FEW = 20  # passes of a network over a task of Omniglot or Banking77, which have a few thousand rows


class NearestMean(nn.Module):
    """The class with the nearest mean."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.means = PrototypeContext(num_features, num_classes)

    def learn(self, batches: Any) -> None:
        x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        for label in y.unique().tolist():
            self.means.start_task(label, [x[y == label]])

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(self.means.infer(x), self.means.max_tasks).float()


@cache
def features(data: str, weights: Path) -> tuple[Tensor, ...]:
    """The means of the stages of a ResNet-20, and labels, of training and test rows; standardised by training rows."""
    source, network, (mean, std) = load_source(data), resnet20(weights).eval(), torch.tensor(IMAGENET)[..., None, None]
    found: list[Tensor] = []
    stages = [network.get_submodule(f"layer{number}") for number in (1, 2, 3)]
    for stage in stages:
        stage.register_forward_hook(lambda _, inputs, output: found.append(output.mean((2, 3))))
    parts: list[Tensor] = []
    for x in (source.x_train, source.x_test):
        rows = []
        for batch in x.split(500):
            images = F.interpolate(batch.float().view(-1, *source.image_shape) / 255, (32, 32), mode="bilinear")
            with torch.no_grad():
                network((images.expand(-1, 3, -1, -1) - mean) / std)
            rows.append(torch.cat(found, 1))
            found.clear()
        parts.append(torch.cat(rows))
    scale, centre = torch.std_mean(parts[0], 0)
    train, test = ((part - centre) / scale for part in parts)
    return train, source.y_train, test, source.y_test


def make_stream(name: str, seed: int, method: str, weights: Path | None) -> TaskStream:
    """The stream of a benchmark: another order of classes, or other domains, for each seed."""
    kind, _, data = name.partition("-")
    trained = method not in ("mean", "ridge")
    if kind == "split":
        images = data.removesuffix(BACKBONE)
        tasks, epochs = SPLITS[images], FEW if trained and images in ("omniglot", "banking77") else 1
        size = 64 if epochs == FEW else 256
        source = data if weights is None or images == data else features(images, weights)
        return SplitTasks(source, tasks, seed=seed, epochs_per_task=epochs, batch_size=size, eval_at=[tasks - 1])
    source = load_source(data)
    part = source.x_train[:6000].float(), source.y_train[:6000], source.x_test[:2000].float(), source.y_test[:2000]
    scaled = [x / 255 if x.is_floating_point() else x for x in part]
    return DOMAINS[kind](scaled, 5, seed=seed, epochs_per_task=5 if trained else 1, batch_size=64, eval_at=[4])


def make_module(method: str, stream: TaskStream) -> tuple[nn.Module, list[Callback]]:
    """A network, or what needs no training, and the callbacks of the method."""
    inputs, classes = stream.num_features, stream.num_classes or 0
    if method == "mean":
        return NearestMean(inputs, classes), []
    if method == "ridge":
        shape = stream.source.shape if len(stream.source.shape) > 1 else (28, 28) if inputs == 784 else inputs
        return ContinualClassifier(RidgeClassifier(shape, classes)), []
    if method.startswith("dendrites"):
        context: Any = {"prototypes": "prototype", "ridge": "ridge"}[method.split(", ")[1]]
        model = ActiveDendriteClassifier(
            inputs, [512, 512], classes, max_tasks=stream.num_tasks, context=context, winners="context",
            activation_density=0.2, weight_density=1.0, segment_seed=stream.seed,
        )  # fmt: skip
        return ContinualClassifier(model, lr=LEARNING_RATE), [SynapticIntelligence()]
    network = nn.Sequential(nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, classes))
    penalties: dict[str, list[Callback]] = {
        "SI": [SynapticIntelligence()],
        "EWC": [ElasticWeightConsolidation(fisher="estimate", max_batches=40)],
    }
    if method == "replay":
        return ReplayClassifier(network, buffer_size=500, lr=LEARNING_RATE), []
    return ContinualClassifier(network, lr=LEARNING_RATE), penalties.get(method, [])


def learn_means(model: NearestMean, stream: TaskStream) -> list[list[float | None]]:
    """The accuracy matrix of the nearest mean, of which the last row alone is measured."""
    for task in range(stream.num_tasks):
        model.learn(stream.task_loader(task))
    last = []
    for task in range(stream.num_tasks):
        found = torch.cat([model(x).argmax(1) == y for x, y in stream.task_loader(task, "test")])
        last.append(float(found.float().mean()))
    return [*([None] * stream.num_tasks for _ in range(stream.num_tasks - 1)), last]


def run(name: str, method: str, seed: int, weights: Path | None) -> ResultRecord:
    """Learn the tasks of a stream one after another."""
    seed_everything(seed, verbose=False)
    stream = make_stream(name, seed, method, weights)
    module, callbacks = make_module(method, stream)
    started, found = time.monotonic(), None
    if isinstance(module, NearestMean):
        matrix = learn_means(module, stream)
    else:
        log = ForgettingLogger("val/acc", verbose=False, pictures=False, folder="runs/real-data")
        trainer = Trainer(**stream.trainer_kwargs(), **QUIET, callbacks=[*callbacks, log])
        trainer.fit(module, stream)
        matrix = [[None if value != value else value for value in row] for row in log.matrix.tolist()]
        names = [f"val/task_{task}/context_acc" for task in range(stream.num_tasks)]
        scores = [float(trainer.callback_metrics[key]) for key in names if key in trainer.callback_metrics]
        found = sum(scores) / len(scores) if scores else None
    parameters = sum(p.numel() for p in module.parameters() if p.numel() > 1)
    extra = {} if found is None else {"context_found": found}
    return ResultRecord.from_run(
        [float(value or 0.0) for value in matrix[-1]],
        seed=seed,
        benchmark=name,
        method=method,
        context_at_test="inferred" if found is not None else "none",
        matrix=matrix,
        config={"epochs_per_task": stream.epochs_per_task, "batch_size": stream.batch_size, "lr": LEARNING_RATE},
        command="python benchmarks/real_data.py" + " --weights FILE" * name.endswith(BACKBONE),
        parameters=parameters,
        stream_seeds=[seed],
        wall_time_s=round(time.monotonic() - started, 1),
        **extra,
    )


def main() -> None:
    """Run what is asked for and was not run before, and merge the records of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=STREAMS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--out", type=Path, default=Path("results/real-data.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/real-data"))
    parser.add_argument("--weights", type=Path, help="of a ResNet-20; without, streams on it are left out")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*(overwrites|does not have many workers|outputs change|sum to 1).*")
    for seed in options.seeds:
        for name in options.streams:
            for method in options.methods:
                file = options.runs / f"{name}-{method.replace(', ', '-')}-{seed}.json"
                if file.is_file() or (name.startswith("split") and method.startswith("dendrites")):
                    continue  # split tasks share one output, which is what is forgotten
                if name.endswith(BACKBONE) and options.weights is None:
                    continue
                record = run(name, method, seed, options.weights)
                write_records([record], file)
                print(name, method, seed, f"{record.average_accuracy:.4f}", f"{record.wall_time_s} s", flush=True)
    records = [record for file in sorted(options.runs.glob("*.json")) for record in read_records(file)]
    order = {(name, method): number for number, (name, method) in enumerate((s, m) for s in STREAMS for m in METHODS)}
    records.sort(key=lambda record: (order[record.benchmark, record.method], record.seeds))
    write_records(merge_seeds(records), options.out)


if __name__ == "__main__":
    main()
