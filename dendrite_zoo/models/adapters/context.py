"""Which task an input of a backbone with dendrites is of: inferred from the features that it has without gates."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, TypeGuard

import torch
from torch import Tensor

from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo.contexts import OneHotContext, PrototypeContext, RidgeContext, TaskContext
from dendrite_zoo.contexts.base import mean_over_ranks
from dendrite_zoo.layers.ridge import has_dropped
from dendrite_zoo.models.adapters.classes import size_of_output
from dendrite_zoo.models.adapters.features import Stage

ContextKind = Literal["ridge", "prototype", "given"]
PER_FEATURE, LEAST, MOST = 16, 1024, 3072
"""Random features of a ridge context: so many for each feature, between these."""
MOST_CLASSES = 32
"""Classes of a task whose means a ridge context knows; where there are more, every 32nd shares one."""


def clusters_of(config: Mapping[str, Any]) -> int:
    """The classes of a task that a ridge context tells apart, for a config of an `AdaptedBackbone`."""
    return min(MOST_CLASSES, size_of_output(config)) if config["head"] == "ridge" else 1


def random_features_for(stages: Iterable[Stage]) -> int:
    """How many random features a ridge context has over the features of some stages, in a new model."""
    return min(MOST, max(LEAST, PER_FEATURE * sum(stage.features * (1 + stage.spread) for stage in stages)))


class Learner(Protocol):
    """A model with features of inputs, that begins with a task; an `AdaptedBackbone`."""

    def features(self, x: Any) -> Tensor: ...  # noqa: D102

    def start_task(self, task: int, batches: Iterable[Any]) -> None: ...  # noqa: D102


class AdapterContext(OneHotContext):
    """The task of an input, found by another context from the features of a backbone without gates.

    Args:
        config: of an `AdaptedBackbone`; where tasks are ``"given"``, they cannot be inferred.
        num_features: of a row of features.
        model: whose backbone gives the features.

    Attributes:
        inner: the context over features; None where tasks are given.
    """

    def __init__(self, config: Mapping[str, Any], num_features: int, model: "Learner") -> None:
        super().__init__(max_tasks := config["max_tasks"])
        self.inferable = config["context"] != "given"  # type: ignore[misc]
        self._model = (model,)  # no submodule: it is the one that this context is in
        self.inner: TaskContext | None = None
        if config["context"] == "prototype":
            self.inner = PrototypeContext(num_features, max_tasks)
        elif config["context"] == "ridge":
            hidden = config["context_features"] or min(2048, max(1024, num_features))
            self.inner = RidgeContext(
                num_features, max_tasks, random_features=hidden, whiten=True, num_classes=clusters_of(config)
            )

    def start_task(self, task: int, batches: Iterable[Any]) -> None:
        """Have the model begin with a task; see `AdaptedBackbone.start_task`."""
        self._model[0].start_task(task, batches)

    def learn(self, task: int, features: Iterable[Tensor]) -> None:
        """Take in the features of a task, ``(B, num_features)`` a batch; refused ones change nothing."""
        if self.inner is None:
            self.counts[task] = mean_over_ranks(features)[1]
        else:
            self.inner.start_task(task, features)
            self.counts.copy_(self.inner.counts)

    def class_sums(self, features: Tensor, y: Tensor) -> Tensor:
        """What `split_task` needs of features ``(B, num_features)`` and labels; see `RidgeContext.class_sums`."""
        return self.inner.class_sums(features, y.long()) if self._splits(self.inner) else features.new_zeros(0)

    def split_task(self, task: int, sums: Tensor) -> None:
        """Have a task be known by the means of its classes, where the context can."""
        if self._splits(self.inner):
            self.inner.split_task(task, sums)

    @staticmethod
    def _splits(inner: TaskContext | None) -> TypeGuard[RidgeContext]:
        return isinstance(inner, RidgeContext) and inner.num_classes > 1 and not has_dropped(inner.head.triangle)

    @torch.no_grad()
    def infer(self, x: Any) -> Tensor:
        """The task of each input, as ``(B,)`` integers."""
        if self.inner is None:
            raise ValueError(
                "Expected a `task`, for context='given' infers none, but got None. Call model(x, task=...), or build "
                "the model with context='ridge'."
            )
        return self.inner.infer(self._model[0].features(x))

    @torch.no_grad()
    def confidence(self, x: Any, task: int | Tensor | None = None) -> Tensor:
        """Whether inputs are of their task at all, ``(B,)``; see `dendrite_zoo.contexts.RidgeContext.confidence`.

        Args:
            x: inputs, as the backbone takes them.
            task: one, or one for each input; inferred where None.

        Raises:
            ValueError: the context is of another kind.
        """
        if not isinstance(self.inner, RidgeContext):
            kind = "given" if self.inner is None else "prototype"
            raise wrong_argument("context", "'ridge', which knows how far inputs lie from a task", kind)
        return self.inner.confidence(self._model[0].features(x), task)
