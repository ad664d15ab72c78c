"""Dendrites on a network of anybody's: a gate on each channel, of each task its own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.batches import first_batches, input_batches, labelled_batches
from dendrite_zoo._core.checks import wrong_argument
from dendrite_zoo._core.ranks import sum_over_ranks
from dendrite_zoo.contexts import RidgeContext
from dendrite_zoo.hub import register_model
from dendrite_zoo.hub.artifact import fingerprint
from dendrite_zoo.layers import RidgeHead
from dendrite_zoo.layers.ridge import with_dropped, without_dropped
from dendrite_zoo.models.adapters.classes import (
    classes_with_room,
    filled_absent,
    with_classes,
    without_absent,
)
from dendrite_zoo.models.adapters.context import clusters_of
from dendrite_zoo.models.adapters.features import left_out, not_taken, rows_of
from dendrite_zoo.models.adapters.folding import FoldedBackbone, folded_backbone
from dendrite_zoo.models.adapters.gated import GatedBackbone
from dendrite_zoo.models.adapters.packing import packed, rounded, unpacked
from dendrite_zoo.models.adapters.selection import config_of_tasks, state_of_tasks
from dendrite_zoo.models.adapters.state import LEARNS, WITHOUT_GATES, check_room, with_clusters, with_room

__all__ = ["AdaptedBackbone"]

FIRST_ROWS = 2048  # of a task, by which its features are normalised


@register_model("adapted-backbone")
class AdaptedBackbone(GatedBackbone):
    """A pretrained network with a gate on each channel of some layers, which `dendrite_zoo.add_dendrites` makes.

    Its arguments describe what was learned, and no network: an artifact names its backbone, which `attach` puts in, and
    contains what was learned alone. So does ``state_dict()``, as long as the backbone is frozen.

    Args:
        layers: by name of a gated layer its channels.
        stages: by name of a module that features are taken from (``""`` is the network itself), how many, and the
            dimension that counts them; a third number, 1, where their spread over the others is taken, too.
        num_classes: classes of all tasks, or a list of those of each; the output is as large as the largest.
        max_tasks: how many tasks there is room for.
        head: see `dendrite_zoo.add_dendrites`, as for ``context`` and ``shift``.
        context: where the task comes from.
        shift: whether channels are shifted, too.
        input_features: numbers of the input that a ridge head takes features of, or the shape of an image.
        context_features: random features of a ridge context; None: as many as in artifacts of format 4.
        backbone_name: such as ``"timm/resnet18.a1_in1k@<commit>"``; may be empty.
        backbone_sha256: over names, shapes and bytes of its weights.

    Attributes:
        column: gates, shifts and linear head of the task that learns: all that is trained.
        columns: those of all tasks, ``(max_tasks, ...)``.
        learning: the task that learns, or None.
        context: finds the task of an input, and knows which were learned.

    Raises:
        ValueError: an argument out of range.
    """

    @torch.no_grad()
    def start_task(self, task: int, batches: Iterable[Any]) -> None:
        """Begin with a task: compute its context in one pass over its inputs; its column is what is trained from now.

        Args:
            task: its index.
            batches: its training inputs, each as the backbone takes them; or pairs of inputs and labels.

        Raises:
            TypeError: ``batches`` are no inputs, one batch after another.
            ValueError: there is no room for the task, there are no inputs, some are not finite, or the backbone does
                not take them: then nothing has changed.
        """
        task = int(self.context.task_ids(task))
        takes = self.heads.takes_inputs
        rows = (self._first_features(self._moved(x), takes) for x in input_batches(batches))
        first = first_batches(rows, FIRST_ROWS, len)
        self.context.learn(task, (z[:, : self.num_features] for z in chain(first, rows)))
        self.heads.normalise(task, first)
        self.merge()
        self.column.copy_(self.columns[task])
        self.column.grad, self.learning = None, task
        self.status.bitwise_and_(WITHOUT_GATES)
        self.status[task] = LEARNS

    def _first_features(self, x: Any, inputs: bool) -> Tensor:
        try:
            return self.features(x, inputs=inputs)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if not isinstance(error, RuntimeError) and str(error).startswith("Expected "):
                raise  # our own; layers of torch raise these, too
            raise not_taken(self.backbone, x, error) from error

    @torch.no_grad()
    def start_from(self, start: int | None, task: int) -> None:
        """Let the task that learns start from another one's gates and shifts; from gates of 1 where None."""
        if task != self.learning:
            raise wrong_argument("task", f"the one that learns, {self.learning}", task)
        self.column.zero_()
        if start is not None:
            gates = sum(self._sizes[:2])
            self.column[:gates] = self.columns[start, :gates]

    @torch.no_grad()
    def nearest_task(self, candidates: Sequence[int | None], batches: Sequence[tuple[Any, Tensor]]) -> int | None:
        """The task whose gates suit the one that learns best: by the accuracy of a linear head on every other batch.

        Args:
            candidates: tasks, or None for gates of 1, which wins a draw where it stands first.
            batches: of inputs and labels; a single one is halved.

        Raises:
            ValueError: labels out of range, or no batches.
        """
        task = self.learning
        if task is None:
            raise ValueError("Expected a task that learns, but got none. Call model.start_task(task, inputs) first.")
        batches = [self._moved(batch) for batch in batches]
        if len(batches) == 1:
            halves = torch.arange(len(batches[0][1]))
            batches = [(rows_of(x, part), y[part]) for x, y in batches for part in (halves[::2], halves[1::2])]
        found: list[float] = []
        for candidate in candidates:
            z = [(f := self.features(x, candidate), labels(y, f)) for x, y in batches]
            head = RidgeHead(self.num_features, self.heads.classes[task]).to(self.column.device)
            head.learn((self.heads.normalised(f, task), y) for f, y in z[::2])
            right = [head(self.heads.normalised(f, task)).argmax(1) == y for f, y in z[1::2]]
            count = torch.stack([torch.cat(right).sum(), torch.tensor(sum(map(len, right)), device=self.column.device)])
            sum_over_ranks(count)
            found.append(float(count[0] / count[1]))
        return candidates[found.index(max(found))]

    @torch.no_grad()
    def fit_head(self, task: int, batches: Iterable[tuple[Any, Tensor]]) -> None:
        """Solve the ridge head of a task, in one pass over its data; its gates may have been trained, or not.

        Until it is called again, or the task begins anew, it takes the place of the linear head that was trained. By
        each seventh row, chosen by what is in it, which the gates were not trained on, either, the head chooses whether
        it is given features with gates: only where they are better. See `sees_gates`.

        Then the model is in eval mode, in which that head answers. In train mode the task that learns has the linear
        head still: to train it on, call ``model.train()``.

        Args:
            task: a task that was started.
            batches: its training data, pairs of inputs and labels.

        Raises:
            ValueError: the head is another; labels are out of range, or there are none.
        """
        task = int(self.context.task_ids(task))
        if self.config["head"] != "ridge":
            raise wrong_argument("head", "'ridge' to be solved", self.config["head"])
        if not self.context.counts[task]:
            raise ValueError(
                f"Expected a task that was started, but got {task}. Call model.start_task({task}, inputs)."
            )
        gated = bool(self._parts(task, False)[0].any()) or bool(self._parts(task, False)[1].any())

        sums = self.context.class_sums(self.column.new_zeros(0, self.num_features), self.status[:0].long())

        def rows() -> Iterator[tuple[list[Tensor], Tensor, Tensor]]:
            for x, y in map(self._moved, labelled_batches(batches)):
                y = labels(y, z := self.features(x, inputs=True))
                sums.add_(self.context.class_sums(z[:, : self.num_features], y))
                yield [z, self.features(x, task)] if gated else [z], y, left_out(x)

        best = self.heads.fit(task, rows(), ways=1 + gated)
        self.context.split_task(task, sums)
        self.status[task] = (self.status[task] & LEARNS) + WITHOUT_GATES * (gated and best == 0)
        self.eval()

    def sees_gates(self, task: int) -> bool:
        """Whether gates have a part in the output for a task: its ridge head may have been better without."""
        return not int(self.status[self.context.task_ids(task)] & WITHOUT_GATES)

    @torch.no_grad()
    def fold(self, task: int) -> FoldedBackbone:
        """A network without gates that computes what this one does in a task: they are in its weights.

        Its attribute ``backbone`` is the plain network alone.

        Example:
            >>> from torch import nn
            >>> from dendrite_zoo import add_dendrites
            >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
            >>> add_dendrites(network, layers="0", num_classes=2, max_tasks=3).fold(task=0).backbone
            Sequential(
              (0): Linear(in_features=4, out_features=8, bias=True)
              (1): ReLU()
            )
        """
        task = int(self.context.task_ids(task))
        with self._gated(task, by_head=True) as gates:
            backbone = folded_backbone(self.backbone, gates)
        return FoldedBackbone(self._extractor().of(backbone), self.heads.one(task), self._linear(task)).eval()

    @torch.no_grad()
    def drop_sums(self, *, half: bool = False) -> None:
        """Give up the sums from which a ridge context learns further tasks, megabytes of an artifact; outputs stay.

        No task can be started afterwards.

        Args:
            half: whether the weights of heads and context are rounded to float16, too, in which an artifact then has
                them: half of nearly all that is left. Outputs change by about a thousandth of their size.
        """
        if isinstance(self.context.inner, RidgeContext):
            self.context.inner.head.drop_sums()
        for name, buffer in self.named_buffers():
            if half:
                buffer.copy_(rounded(name, buffer))

    @torch.no_grad()
    def of_tasks(self, tasks: Sequence[int], *, num_classes: int | Sequence[int] | None = None) -> "AdaptedBackbone":
        """A model of some tasks alone, without a backbone, to be published: numbered anew, it learns no further one.

        With the task given outputs are as they were, but for rounding; where it is inferred, it is one of these tasks.

        Args:
            tasks: which, in their new order.
            num_classes: of these tasks; by default as in this model.

        Raises:
            ValueError: a task was not learned, or has more classes.
        """
        if not tasks or any(not self.context.counts[self.context.task_ids(task)] for task in tasks):
            raise wrong_argument("tasks", "tasks that were learned", list(tasks))
        config = config_of_tasks(self.config, tasks, num_classes)
        model, clusters = AdaptedBackbone(**config), (clusters_of(self.config), clusters_of(config))
        state = {name: x.cpu() for name, x in self.state_dict().items() if not name.startswith("extractor.")}
        model.load_state_dict(
            state_of_tasks(state, tasks, sizes=self._sizes, classes=model.heads.classes, clusters=clusters)
        )
        return model.eval()

    @classmethod
    def to_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Leave out sums that were given up, and of other tables what is zero or can be written in fewer bits."""
        return packed(without_dropped(without_absent(config, state)))

    @classmethod
    def from_file(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Note that they were; give tasks room for the means of their classes, where they had but one."""
        state = filled_absent(config, unpacked(state))
        if config["context"] != "ridge":
            return state
        head = "context.inner.head"
        return with_dropped(with_clusters(state, head, config["max_tasks"], clusters_of(config)), head)

    @classmethod
    def adapt(
        cls, config: dict[str, Any], state: dict[str, Tensor], changes: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Tensor], list[str]]:
        """Load with another ``max_tasks``, or with other classes of tasks to come: what was learned stays as it is."""
        learned = 1 + max(state["context.counts"].nonzero().flatten().tolist(), default=-1)
        check_room(learned, changes.get("max_tasks", config["max_tasks"]))
        new = {**config, **changes, "num_classes": classes_with_room(config, changes, learned)}
        known, wanted = clusters_of(config), clusters_of(new)
        state = with_clusters(state, "context.inner.head", config["max_tasks"], wanted, known)
        state = {**state, "columns": with_classes(config, new, state["columns"])}
        return new, with_room(state, cls(**new).state_dict()), []

    def _save(self, *args: Any) -> None:
        if self.extractor is not None and all(p.dtype == torch.float32 for p in self.parameters()):
            if fingerprint(self.backbone.state_dict()) != self.config["backbone_sha256"]:
                raise ValueError(
                    "Expected the backbone as it was when the dendrites were added, for an artifact has none, "
                    "but got other weights. Save the backbone by itself, and add dendrites to it anew."
                )
        super()._save(*args)


def labels(y: Tensor, z: Tensor) -> Tensor:
    """Labels ``(B,)`` of features ``(B, F)`` as they are; a ValueError where they are none."""
    if y.is_floating_point() or y.ndim != 1:
        got = f"{y.dtype} of shape {tuple(y.shape)}"
        raise ValueError(
            f"Expected class labels, integers of shape (batch,), for head='ridge', but got {got}. For other targets "
            "build the model with head='linear'."
        )
    if len(y) != len(z):
        raise ValueError(f"Expected a label for each of {len(z)} inputs, but got {len(y)}. Check the data loader.")
    return y
