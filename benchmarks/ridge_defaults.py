"""The defaults of `RidgeClassifier` beside their neighbours, on training rows held out: no test row is looked at.

    python benchmarks/ridge_defaults.py [--out results/ridge-defaults.json]

Of 10,000 training images of Fashion-MNIST, all 3,630 of Omniglot and all 10,003 questions of Banking77 a fifth of each
class is held out; one thing at a time is changed. Random features are 4,096, for memory and time grow with them.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from dendrite_zoo._core.files import write_json
from dendrite_zoo.layers import patch_features
from dendrite_zoo.models import RidgeClassifier
from dendrite_zoo.streams import load_source
from dendrite_zoo.streams.sampling import hold_out

MOST = 10_000
SOURCES = ("fashion-mnist", "omniglot", "banking77")
PENALTIES = (None, 0.01, 0.1, 0.3, 1.0, 10.0)  # None: chosen by the sums
CHANGES = {"THRESHOLD": (0.1, 0.5), "WHITENING": (0.01,)}


def rows(name: str) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...] | int]:
    """Training rows, their labels, which are held out, and the shape of a row."""
    source = load_source(name)
    x = source.normalise(source.x_train[:MOST].float())
    y = source.y_train[:MOST]
    held = hold_out(y, 0.2, seed=0, name="the share held out", remedy="")
    return x, y, held, source.shape if len(source.shape) > 1 else source.num_features


def accuracies(name: str) -> dict[str, float]:
    """Accuracy on the rows held out, by penalty."""
    x, y, held, shape = rows(name)
    model = RidgeClassifier(shape, int(y.max()) + 1)
    model.learn([(x[~held], y[~held])])
    seen = torch.cat([model.features(part) for part in x[held].split(500)])
    found = {}
    for penalty in PENALTIES:
        model.head.penalty = penalty
        model.head.solve()
        right = float((model.head(seen).argmax(1) == y[held]).double().mean())
        found["chosen" if penalty is None else f"{penalty:g}"] = round(right, 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/ridge-defaults.json"))
    options = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    cases = [("", None), *((name, value) for name, values in CHANGES.items() for value in values)]
    for name, value in cases:
        default = getattr(patch_features, name) if name else None
        label = f"{name} {value:g} (default {default:g})" if value is not None and default is not None else "defaults"
        if name:
            setattr(patch_features, name, value)
        for source in SOURCES[: len(SOURCES) - bool(name)]:  # texts have no patches
            found.setdefault(label, {})[source] = accuracies(source)
            print(label, source, json.dumps(found[label][source]), flush=True)
        if name:
            setattr(patch_features, name, default)
        write_json(options.out, found)


if __name__ == "__main__":
    main()
