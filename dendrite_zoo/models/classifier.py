"""A classifier that finds the context of an input by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from dendrite_zoo.contexts import ClusterContext, OneHotContext, PrototypeContext, TaskContext
from dendrite_zoo.functional import Gate
from dendrite_zoo.hub import HubModel, register_model
from dendrite_zoo.layers.sparse import check_size, uniform_
from dendrite_zoo.models.folded import FoldedClassifier, FoldedMLP
from dendrite_zoo.models.mlp import ActiveDendriteMLP

__all__ = ["ActiveDendriteClassifier"]

ContextKind = Literal["prototype", "one-hot", "clusters"]


@register_model("active-dendrite-classifier")
class ActiveDendriteClassifier(HubModel, nn.Module):
    """An `ActiveDendriteMLP` together with the context of each task it has learned: what the zoo publishes.

    ``model(x)`` infers the context of each row, ``model(x, task=...)`` takes it as given. What the model knows of its
    tasks lies in buffers, so a reloaded model finds its contexts by itself.

    Args:
        in_features: size of an input row.
        hidden_features: units of each hidden layer.
        num_classes: size of the one output that all tasks share.
        max_tasks: how many tasks there is room for.
        num_segments: segments a unit; None for as many as tasks (the paper's choice).
        context: ``"prototype"`` (mean input of the task), ``"clusters"`` (the same for tasks that nobody announces, see
            `dendrite_zoo.contexts.ClusterContext`) or ``"one-hot"`` (task id, always given).
        gate: this and the following as in `ActiveDendriteMLP`.
        activation: ``"k-winners"`` or ``"relu"``.
        activation_density: share of the units of a hidden layer that win.
        winners: what they are chosen by, ``"activation"`` or ``"context"``.
        weight_density: share of inputs each hidden unit sees.
        segment_density: share of the context each segment sees.
        input_density: share of inputs that is active, for the initialisation; None for what ``activation`` leaves.
        dendrite_layers: which hidden layers have dendrites; None for all.

    Shape:
        x ``(B, ...)``, flattened to ``(B, in_features)``, to logits ``(B, num_classes)``.

    Raises:
        ValueError: an argument out of range, or a task beyond ``max_tasks``.

    Example:
        >>> model = ActiveDendriteClassifier(64, [128, 128], 10, max_tasks=5)
        >>> model.context.start_task(0, [torch.rand(32, 64)])
        >>> model(torch.rand(3, 64)).shape, model.num_tasks
        (torch.Size([3, 10]), 1)
    """

    pipeline_tag = "image-classification"
    context: TaskContext

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int],
        num_classes: int,
        *,
        max_tasks: int,
        num_segments: int | None = None,
        context: ContextKind = "prototype",
        gate: Gate = "abs_max",
        activation: Literal["k-winners", "relu"] = "k-winners",
        activation_density: float = 0.05,
        winners: Literal["activation", "context"] = "activation",
        weight_density: float = 0.5,
        segment_density: float = 1.0,
        input_density: float | None = None,
        dendrite_layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "in_features": in_features,
            "hidden_features": list(hidden_features),
            "num_classes": num_classes,
            "max_tasks": max_tasks,
            "num_segments": num_segments,
            "context": context,
            "gate": gate,
            "activation": activation,
            "activation_density": activation_density,
            "winners": winners,
            "weight_density": weight_density,
            "segment_density": segment_density,
            "input_density": input_density,
            "dendrite_layers": None if dendrite_layers is None else list(dendrite_layers),
        }
        self.validate_config(self.config)
        if context == "one-hot":
            self.context = OneHotContext(max_tasks)
        else:
            self.context = (PrototypeContext if context == "prototype" else ClusterContext)(in_features, max_tasks)
        self.mlp = ActiveDendriteMLP(
            in_features,
            hidden_features,
            num_classes,
            context_dim=self.context.context_dim,
            num_segments=max_tasks if num_segments is None else num_segments,
            gate=gate,
            activation=activation,
            activation_density=activation_density,
            winners=winners,
            weight_density=weight_density,
            segment_density=segment_density,
            context_density=1.0 if context == "one-hot" else 0.1,
            input_density=input_density,
            dendrite_layers=dendrite_layers,
        )

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Raise a ValueError for the first argument out of range; nothing is allocated."""
        check_size(max_tasks=config["max_tasks"], num_classes=config["num_classes"])
        if config.get("context", "prototype") not in get_args(ContextKind):
            raise ValueError(f"context={config['context']!r} came; expected one of {', '.join(get_args(ContextKind))}.")
        if config.get("num_segments") != 0 and config.get("num_segments") is not None:
            check_size(num_segments=config["num_segments"])
        ActiveDendriteMLP.validate_config({**config, "out_features": config["num_classes"]})

    @classmethod
    def usage(cls, config: Mapping[str, Any]) -> str:
        """Lines for the card: the context inferred, and given."""
        lines = [f"x = torch.rand(8, {config['in_features']})  # rows like those it was trained on"]
        if config.get("context", "prototype") == "prototype":
            lines.append("logits = model(x)  # finds the context of each row by itself")
        return "\n".join([*lines, "logits = model(x, task=0)  # takes it as given"])

    @classmethod
    def limits(cls, config: Mapping[str, Any]) -> list[str]:
        """Sentences for the card: the capacity."""
        return [f"It has room for {config['max_tasks']} tasks; a larger `max_tasks=` at loading makes more."]

    @classmethod
    def adapt(
        cls, config: dict[str, Any], state: dict[str, Tensor], changes: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
        """Load with another ``num_classes`` (the output layer starts anew) or a larger ``max_tasks``.

        Room for more tasks leaves everything learned as it is; with a one-hot context the segments' weights for the new
        ids are drawn as those of the old ones were.
        """
        unknown = sorted(set(changes) - {"num_classes", "max_tasks"})
        if unknown:
            raise TypeError(f"{cls.__name__}.from_pretrained got {unknown}; it knows num_classes= and max_tasks=.")
        new, state, fresh = {**config, **changes}, dict(state), []
        cls.validate_config(new)
        if new["num_classes"] != config["num_classes"]:
            fresh = ["mlp.output.weight", "mlp.output.bias"]
            state = {name: tensor for name, tensor in state.items() if name not in fresh}
        added = new["max_tasks"] - config["max_tasks"]
        if added < 0:
            raise ValueError(
                f"max_tasks={new['max_tasks']} came for a model with room for {config['max_tasks']} tasks; expected at "
                "least as many. What was learned is never dropped."
            )
        if added:
            new["num_segments"] = config["max_tasks"] if config["num_segments"] is None else config["num_segments"]
            for name in state:
                if name.startswith("context."):
                    state[name] = torch.cat([state[name], state[name].new_zeros(added, *state[name].shape[1:])])
            if new["context"] == "one-hot":
                state.update(_with_more_ids(state, added, config["max_tasks"], config["segment_density"]))
        return new, state, fresh

    @property
    def num_tasks(self) -> int:
        """How many tasks were learned."""
        return self.context.num_tasks

    @property
    def max_tasks(self) -> int:
        """How many tasks there is room for."""
        return self.context.max_tasks

    @property
    def num_classes(self) -> int:
        """Size of the output."""
        return self.mlp.output.out_features

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Tensor:
        """Logits ``(B, num_classes)`` for ``x``, in the context of ``task`` (one, or ``(B,)``), inferred where None."""
        x = x.flatten(1)
        if x.shape[1] != self.config["in_features"]:
            raise ValueError(
                f"Rows of {x.shape[1]} numbers came to a model of {self.config['in_features']}; expected "
                f"x of shape (batch, {self.config['in_features']}), or one that flattens to it."
            )
        return self.mlp(x, self.context(x, task))

    def active_units(self, task: int) -> list[Tensor]:
        """The units of each hidden layer that are active in a task; see `ActiveDendriteMLP.active_units`."""
        return self.mlp.active_units(self._context_of(task))

    def active_parameters(self, task: int) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        """The part of each parameter that a task uses; see `ActiveDendriteMLP.active_parameters`."""
        return {f"mlp.{name}": index for name, index in self.mlp.active_parameters(self._context_of(task)).items()}

    def fold(self, task: int | None = None) -> nn.Module:
        """A plain network without dendrites that computes the same: logits for ``x`` ``(B, ...)``.

        Args:
            task: whose context is folded into the weights; None for a table of gates in the contexts of all tasks, of
                which each row's is inferred.

        Raises:
            ValueError: contexts are one-hot, which cannot be inferred, and no task was given.

        Example:
            >>> model = ActiveDendriteClassifier(8, [20], 2, max_tasks=3)
            >>> model.fold(task=0)
            Sequential(
              (0): Flatten(start_dim=1, end_dim=-1)
              (1): Linear(in_features=8, out_features=20, bias=True)
              (2): KWinners(density=0.05)
              (3): Linear(in_features=20, out_features=2, bias=True)
            )
        """
        if task is not None:
            return nn.Sequential(nn.Flatten(), *cast(nn.Sequential, self.mlp.fold(self._context_of(task))))
        if not isinstance(self.context, PrototypeContext):
            raise ValueError(
                f"A {type(self.context).__name__} cannot be inferred from inputs; expected fold(task=...). For rows in "
                "several tasks there is model.mlp.fold(torch.arange(num_tasks)), which maps (x, task)."
            )
        return FoldedClassifier(self.context, cast(FoldedMLP, self.mlp.fold(self.context.prototypes)))

    def _context_of(self, task: int) -> Tensor:
        context = self.context(self.context.counts, task)
        assert isinstance(context, Tensor)
        return context


def _with_more_ids(state: Mapping[str, Tensor], added: int, known: int, density: float) -> dict[str, Tensor]:
    """The segments ``(U, S, known)`` of a state and their masks, with room for more one-hot ids."""
    larger = {}
    for name, segments in state.items():
        layer, _, kind = name.rpartition(".")
        if kind == "segments":
            drawn = segments.new_empty(*segments.shape[:-1], added)
            uniform_(drawn, fan_in=density * known)
            mask = state.get(f"{layer}.segment_mask")
            if mask is not None:
                seen = torch.rand(drawn.shape) < density
                drawn.masked_fill_(~seen, 0.0)
                larger[f"{layer}.segment_mask"] = torch.cat([mask, seen], dim=-1)
            larger[name] = torch.cat([segments, drawn], dim=-1)
    return larger
