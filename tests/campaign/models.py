"""Small artifacts of every kind, saved once, and what they are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import dendrite_zoo
from dendrite_zoo.hub import HubModel
from dendrite_zoo.hub.artifact import fingerprint
from dendrite_zoo.models import (
    ActiveDendriteClassifier,
    ActiveDendriteMLP,
    ActiveDendritePolicy,
    TwinCritic,
    XdGClassifier,
)
from tests.campaign.verdict import Wrong

SIZES = {"in_features": 16, "hidden_features": [20, 24], "num_segments": 2, "input_density": 0.5}
CONTROL = {"tasks": ["reach-v3", "push-v3"], "hidden_features": [20, 24], "num_segments": 2, "activation_density": 0.5}
MODELS: list[tuple[type[Any], dict[str, Any]]] = [
    (ActiveDendriteClassifier, {**SIZES, "num_classes": 3, "max_tasks": 2, "context_density": 0.5}),
    (ActiveDendriteClassifier, {**SIZES, "num_classes": 3, "max_tasks": 2, "winners": "context", "segment_seed": 3}),
    (ActiveDendriteMLP, {**SIZES, "out_features": 3, "context_dim": 16, "dendrite_layers": [1]}),
    (ActiveDendritePolicy, {**CONTROL, "append_task": True}),
    (TwinCritic, {**CONTROL, "dendrite_layers": [0]}),
    (XdGClassifier, {"in_features": 16, "hidden_features": [20], "num_classes": 3, "max_tasks": 2}),
]
RECORD = {
    "benchmark": "permuted-digits",
    "method": "ours",
    "context_at_test": "inferred",
    "num_tasks": 3,
    "average_accuracy": 0.8766,
    "average_accuracy_std": 0.0123,
    "average_accuracy_per_seed": [0.87, 0.88, 0.88],
    "seeds": [0, 1, 2],
    "matrix": [[0.90, 0.12, None], [0.95, 0.88, 0.11], [0.97, 0.80, 0.86]],
    "task_accuracies": [0.97, 0.80, 0.86],
    "command": "dendrite-zoo fit --config permuted-digits",
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "hardware": "a machine, 2 cores",
    "wall_time_s": 700.0,
    "parameters": 4321,
    "config_hash": "c0ffee",
    "sparsity": {"mlp.hidden.0": {"activation_sparsity": 0.95, "dead_units": 0.1}},
    "tasks": ["reach-v3", "push-v3", "button-press-v3"],
    "interval": [0.8, 0.9],
    "steps_to_success": [40.5, None, 70.0],
    "success_at_last_step": 0.5,
    "updates": 1000,
}


@dataclass(frozen=True)
class Original:
    """An artifact as it was saved."""

    folder: Path
    config: dict[str, Any]
    state: dict[str, Tensor]
    first_format: bool = False

    def tells_apart(self, other: "Original") -> bool:
        """Whether something in the files says that the other's weights are not of this config."""
        own, others = ({name: tensor.shape for name, tensor in one.state.items()} for one in (self, other))
        return not self.first_format or own != others

    def same(self, model: HubModel) -> None:
        """Raise `Wrong` unless a model has these arguments and these tensors, to the bit."""
        if model.config != self.config or json.dumps(model.config) != json.dumps(self.config):
            raise Wrong(f"it loads with other arguments: {model.config}")
        state = model.state_dict() if isinstance(model, nn.Module) else {}
        if state.keys() != self.state.keys():
            raise Wrong(f"it loads with other tensors: {sorted(state)}")
        for name, tensor in self.state.items():
            if tensor.dtype != state[name].dtype or not torch.equal(tensor, state[name]):
                raise Wrong(f"it loads with another {name}")


def of_format_1(original: Original) -> Original:
    """The same model as the first format has it: a fingerprint over the tensors alone."""
    folder = original.folder.with_name(f"{original.folder.name}-of-format-1")
    folder.mkdir(exist_ok=True)
    config = json.loads((original.folder / "config.json").read_text())
    seeded = config.pop("segment_seed", None) is not None  # which the first format did not have
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 1}))
    marks = {"dendrite-zoo": json.dumps({"fingerprint": fingerprint(original.state)})}
    save_file(original.state, folder / "model.safetensors", marks)
    return Original(folder, {**original.config, **({"segment_seed": 0} if seeded else {})}, original.state, True)


def originals(folder: Path) -> list[Original]:
    """Save every model below a folder, with results."""
    torch.manual_seed(0)
    found = []
    for number, (model_class, arguments) in enumerate(MODELS):
        place = folder / f"model-{number}"
        model_class(**arguments).save_pretrained(place, results=[RECORD, {**RECORD, "method": "control"}])
        model = dendrite_zoo.load(place)
        found.append(Original(place, model.config, {name: t.clone() for name, t in model.state_dict().items()}))
    return found
