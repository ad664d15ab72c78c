"""A classifier that finds the context of an input by itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo.contexts import ClusterContext, OneHotContext, PrototypeContext, RidgeContext, TaskContext
from dendrite_zoo.hub import register_model
from dendrite_zoo.models.config import Arguments, MLPConfig, takes
from dendrite_zoo.models.folded import FoldedClassifier, FoldedMLP
from dendrite_zoo.models.growth import with_subnetworks
from dendrite_zoo.models.mlp import ActiveDendriteMLP
from dendrite_zoo.models.room import begin_additive, make_additive, make_columns
from dendrite_zoo.models.segments import DendriteModel

__all__ = ["ActiveDendriteClassifier"]

ContextKind = Literal["prototype", "ridge", "one-hot", "clusters"]
CONTEXTS: dict[ContextKind, Callable[[int, int], TaskContext]] = {
    "prototype": PrototypeContext,
    "ridge": RidgeContext,
    "clusters": ClusterContext,
    "one-hot": lambda in_features, max_tasks: OneHotContext(max_tasks),
}
BY_ID = "one-hot", "ridge"  # of which a context has a number for each task; others have one for each input


@dataclass(kw_only=True)
class TaskArguments(Arguments):
    """The sizes that every classifier of several tasks has."""

    in_features: int = field(kw_only=False)
    hidden_features: Sequence[int] = field(kw_only=False)
    num_classes: int = field(kw_only=False)
    max_tasks: int


@dataclass(kw_only=True)
class ClassifierArguments(TaskArguments, MLPConfig):
    """The arguments of `ActiveDendriteClassifier`."""

    context: ContextKind = "prototype"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap is not None and self.context != "one-hot":
            raise wrong_argument("overlap", "None unless context='one-hot'", self.overlap, "Leave it out.")


class TaskClassifier:
    """What classifiers of several tasks have in common."""

    config: dict[str, Any]
    context: TaskContext

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
        return int(self.config["num_classes"])

    def _rows(self, x: Tensor) -> Tensor:
        """``x`` ``(B, ...)`` as ``(B, in_features)``."""
        size = self.config["in_features"]
        if not isinstance(x, Tensor):
            raise TypeError(f"Expected `x` to be a tensor, but got {type(x).__name__}. Use torch.as_tensor(x).")
        rows = x.flatten(1) if x.ndim > 1 else x
        if rows.ndim != 2 or rows.shape[1] != size:
            remedy = "Of one row make a batch: x[None]." if x.ndim < 2 else ""
            raise wrong_argument(
                "x", f"of shape (batch, {size}), or one that flattens to it", tuple(rows.shape), remedy
            )
        if not x.is_floating_point():
            raise TypeError(f"Expected `x` to be floats, scaled as in training, but got {x.dtype}. Use x.float().")
        kind = next(cast(nn.Module, self).parameters()).dtype  # NumPy's floats are of 64 bits
        return rows.to(kind) if x.dtype == torch.float64 else rows


@register_model("active-dendrite-classifier")
class ActiveDendriteClassifier(TaskClassifier, DendriteModel):
    """An `ActiveDendriteMLP` together with the context of each task it has learned: what the zoo publishes.

    ``model(x)`` infers the context of each row, ``model(x, task=...)`` takes it as given. What the model knows of its
    tasks lies in buffers, so a reloaded model finds its contexts by itself.

    Args:
        in_features: size of an input row.
        hidden_features: units of each hidden layer.
        num_classes: size of the one output that all tasks share.
        max_tasks: how many tasks there is room for.
        num_segments: segments a unit; None for as many as tasks (the paper's choice).
        context: ``"prototype"`` (mean input of the task), ``"ridge"`` (task id, found also where tasks look alike, see
            `dendrite_zoo.contexts.RidgeContext`), ``"clusters"`` (as prototypes, for tasks that nobody announces, see
            `dendrite_zoo.contexts.ClusterContext`) or ``"one-hot"`` (task id, always given).

    All options of `dendrite_zoo.models.MLPConfig` are arguments, too.

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

    changeable = ("num_classes", "max_tasks", "additive_segments")

    @takes(ClassifierArguments)
    def __init__(self, config: ClassifierArguments) -> None:
        super().__init__(config)
        self.context = CONTEXTS[config.context](config.in_features, config.max_tasks)
        one_hot = isinstance(self.context, OneHotContext)
        density = (1.0 if one_hot else 0.1) if config.context_density is None else config.context_density
        num_segments = config.max_tasks if config.num_segments is None else config.num_segments
        options = config.options(num_segments=num_segments, context_density=density)
        sizes = config.in_features, config.hidden_features, config.num_classes
        self.mlp = ActiveDendriteMLP(*sizes, context_dim=self.context.context_dim, **options)

    @classmethod
    def adapt(
        cls, config: dict[str, Any], state: dict[str, Tensor], changes: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
        """Load with another ``num_classes`` or ``max_tasks``, or with ``additive_segments``, which are 0 at first.

        Room for more classes or tasks leaves everything learned as it is: the logits of new classes are 0 until they
        are trained, and with a one-hot context the segments' weights for the new ids are drawn as those of the old ones
        were. The weights of known classes are equal to the bit, their logits but for rounding: a product of matrices
        may add up in another order where it has more rows. With fewer classes the output layer starts anew.
        """
        new, state, fresh = {**config, **changes}, dict(state), []
        ClassifierArguments(**new)  # which checks them
        context_dim = config["max_tasks"] if config["context"] in BY_ID else config["in_features"]
        config = begin_additive(config, state, context_dim, changes)
        added = new["num_classes"] - config["num_classes"]
        output = [
            name for name in state if name.startswith(("mlp.output.", "mlp.additive.weight", "mlp.additive.bias"))
        ]
        if added < 0:
            fresh = output
            state = {name: tensor for name, tensor in state.items() if name not in fresh}
        for name in output if added > 0 else ():
            state[name] = torch.cat([state[name], state[name].new_zeros(added, *state[name].shape[1:])])
        if new["max_tasks"] != config["max_tasks"]:
            new["num_segments"] = config["max_tasks"] if config["num_segments"] is None else config["num_segments"]
            new |= _make_room(config, state, new["max_tasks"])
            added = range(config["max_tasks"], new["max_tasks"])
            if config["winners"] == "context" and config["overlap"] is not None and added:
                state = with_subnetworks(cls, new, state, dict.fromkeys(added))
        return new, state, fresh

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Tensor:
        """Logits ``(B, num_classes)`` for ``x``, in the context of ``task`` (one, or ``(B,)``), inferred where None."""
        x = self._rows(x)
        context = self.context(x, task)
        self.context.warn_of_unlearned(task)
        output = self.mlp(x, context)
        self.context.warn_of_unstarted(task, output)
        return output

    @property
    def default_lr(self) -> float:
        """The learning rate of the modules of `dendrite_zoo.lightning_modules`, where none is given.

        5e-4 for 2048 units, as in the paper, and for a model that knows tasks; the fewer units a layer has, the more,
        up to 4e-3, as of few active units each has to learn more; 4e-3 where the context chooses them.
        """
        knows_tasks = not self.context.counts.is_meta and self.num_tasks > 0
        if knows_tasks or self.config["activation"] != "k-winners":
            return 5e-4
        if self.config["winners"] == "context":
            return 4e-3
        return min(4e-3, max(5e-4, 5e-4 * 2048 / max(self.config["hidden_features"])))

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
              (2): KWinners(density=0.2)
              (3): Linear(in_features=20, out_features=2, bias=True)
            )
        """
        if task is not None:
            self.context.warn_of_unlearned(self.context.task_ids(task))
            return nn.Sequential(nn.Flatten(), *cast(nn.Sequential, self.mlp.fold(self._context_of(task))))
        if not self.context.inferable:
            remedy = "call fold(task=...), or model.mlp.fold(ids), which maps (x, index)."
            raise ValueError(f"{type(self.context).__name__} cannot be inferred from inputs: {remedy}")
        ids = torch.arange(self.max_tasks, device=self.context.counts.device)
        contexts = self.context.prototypes if isinstance(self.context, PrototypeContext) else ids
        return FoldedClassifier(self.context, cast(FoldedMLP, self.mlp.fold(contexts)))

    def _context_of(self, task: int) -> Tensor:
        return cast(Tensor, self.context(self.context.counts, task))


def _make_room(config: Mapping[str, Any], state: dict[str, Tensor], max_tasks: int) -> dict[str, Any]:
    """Give the tensors of a state that depend on the number of tasks room for more, or less where none was learned.

    Returns:
        The arguments that are others: of layers that became wider.
    """
    known, learned = config["max_tasks"], 1 + max(state["context.counts"].nonzero().flatten().tolist(), default=-1)
    if max_tasks < learned:
        raise wrong_argument(
            "max_tasks", f"at least {learned}, the tasks learned", max_tasks, "No task is ever dropped."
        )
    for name, empty in CONTEXTS[config["context"]](config["in_features"], max_tasks).state_dict().items():
        held = state.get(f"context.{name}", empty)
        if held.shape != empty.shape:  # of a number a task
            state[f"context.{name}"] = torch.cat([held[:max_tasks], empty[len(held) :].to(held)])
    if config["context"] in BY_ID:
        places = [task if task < known else None for task in range(max_tasks)]
        wider = make_columns(config, state, known, places)
        has_columns = config["context"] == "one-hot" and config["winners"] == "activation"
        added = make_additive(config, state, known, places, is_new=has_columns and max_tasks > known)
        sizes = {name: wider[name] for name in ("hidden_features", "activation_density")}
        return {**sizes, "additive_segments": added}
    return {}
