"""What a user does first, with the installed package alone: run by the Python of a fresh environment."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from lightning.pytorch import Trainer

import dendrite_zoo
from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.hub import registry
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendritePolicy, AdaptedBackbone
from dendrite_zoo.streams import PermutedTasks


def check(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(what)


def predict(name: str) -> None:
    model = dendrite_zoo.load(name)
    if isinstance(model, ActiveDendritePolicy):
        action = model.act([0.0] * model.config["observation_size"], model.tasks[0])
        check(action.shape == (model.config["action_size"],), f"{name}: an action of shape {action.shape}")
    elif isinstance(model, AdaptedBackbone):  # which takes a backbone
        check(model.num_tasks > 0, f"{name}: no tasks")
    else:
        shape = model.config.get("input_shape", model.config.get("in_features"))
        logits = model(torch.rand(3, *([shape] if isinstance(shape, int) else shape)))
        check(logits.isfinite().all().item() and len(logits) == 3, f"{name}: logits {logits}")


def learn() -> float:
    """One new task for a pretrained model, the ten that it knows equal to the bit."""
    stream = PermutedTasks("digits", num_tasks=11, first_task=10, epochs_per_task=5, batch_size=32)
    module = ContinualClassifier(dendrite_zoo.load("permuted-digits"), learn="new")
    log = ForgettingLogger("val/acc", verbose=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(**stream.trainer_kwargs(), **quiet, callbacks=[log], enable_checkpointing=False)
    trainer.validate(module, stream, verbose=False)
    trainer.fit(module, stream)
    before, after = log.matrix[-2], log.matrix[-1]
    check(torch.equal(before[:10], after[:10]), f"what was known has changed: {before} {after}")
    check(float(after[10]) > 0.8, f"the new task was not learned: {after}")
    return float(after[10])


def main() -> None:
    check(Path(dendrite_zoo.__file__).is_relative_to(sys.prefix), f"not the installed one: {dendrite_zoo.__file__}")
    loaded = [entry.name for entry in registry.entries().values() if entry.bundled]
    for entry in registry.entries().values():
        if entry.bundled:
            predict(entry.name)
        elif entry.not_built:
            try:
                dendrite_zoo.load(entry.name)
            except FileNotFoundError as error:
                check(entry.build in str(error), f"{entry.name}: {error}")
    command = Path(sys.executable).with_name("dendrite-zoo")
    shown = subprocess.run([command, "list"], capture_output=True, text=True, check=True).stdout
    check(all(name in shown for name in loaded), f"dendrite-zoo list shows: {shown}")
    accuracy = learn()
    parts = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "numpy", "huggingface-hub"))
    print(f"{len(loaded)} models load and predict, an eleventh task learned to {accuracy:.3f}; {parts}")


if __name__ == "__main__":
    main()
