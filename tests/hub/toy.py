"""A small registered model for these tests: the hub knows no real one."""

import torch
from torch import nn

from dendrite_zoo.hub import HubModel, register_model
from dendrite_zoo.hub.publish.kinds import KINDS, Kind


@register_model("toy")
class Toy(HubModel, nn.Module):
    """A linear head over a table of ``max_tasks`` prototypes, kept in float32 whatever the weights are."""

    changeable = ("num_classes", "max_tasks")

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        max_tasks: int = 3,
        hidden: tuple[int, ...] = (),
        scale: float = 1.0,
        note: str | None = None,
    ):
        super().__init__()
        if max_tasks > 10_000:
            raise ValueError(f"config.json: expected max_tasks to be at most 10000, but got {max_tasks}.")
        self.config = dict(
            in_features=in_features,
            num_classes=num_classes,
            max_tasks=max_tasks,
            hidden=list(hidden),
            scale=scale,
            note=note,
        )
        sizes = (in_features, *hidden)
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.body = nn.Sequential(*(nn.Linear(a, b) for a, b in pairs))
        self.head = nn.Linear(sizes[-1], num_classes)
        self.register_buffer("prototypes", torch.zeros(max_tasks, in_features))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.prototypes = self.prototypes.float()
        return self

    def forward(self, x):
        return self.head(self.body(x))

    @classmethod
    def adapt(cls, config, state, changes):
        config, state, fresh = {**config}, {**state}, []
        for key, value in changes.items():
            if key == "num_classes":
                fresh += ["head.weight", "head.bias"]
                del state["head.weight"], state["head.bias"]
            else:
                wider = torch.zeros(value, config["in_features"])
                wider[: config["max_tasks"]] = state["prototypes"]
                state["prototypes"] = wider
                fresh.append("prototypes")
            config[key] = value
        return config, state, fresh


KINDS["toy"] = Kind(
    pipeline_tag="image-classification",
    usage=lambda arguments: f"logits = model(torch.rand(8, {arguments['in_features']}))",
    limits=lambda arguments: [f"It holds {arguments['max_tasks']} tasks."],
)
