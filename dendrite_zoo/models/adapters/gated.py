"""A backbone, the gates on its channels, and what they make of an input."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import check_choice, wrong_argument
from dendrite_zoo._core.torch import runs_eagerly
from dendrite_zoo.hub import HubModel
from dendrite_zoo.hub.artifact import fingerprint
from dendrite_zoo.hub.resolve import REPO
from dendrite_zoo.layers.gate import BATCH_NORMS, ChannelGate, FrozenNorm, channels_of
from dendrite_zoo.models.adapters.builders import build_backbone
from dendrite_zoo.models.adapters.classes import check_classes, classes_by_task, size_of_output
from dendrite_zoo.models.adapters.context import AdapterContext, ContextKind
from dendrite_zoo.models.adapters.features import FeatureExtractor, Stage, left_out, map_tensors, num_rows, rows_of
from dendrite_zoo.models.adapters.gradient import Again, NotLearning
from dendrite_zoo.models.adapters.head import HeadKind, TaskHeads
from dendrite_zoo.models.adapters.state import WITHOUT_GATES, add_hooks

logger = logging.getLogger(__name__)

G = TypeVar("G", bound="GatedBackbone")


class GatedBackbone(HubModel, nn.Module):
    """What an `AdaptedBackbone` is and computes."""

    changeable = ("num_classes", "max_tasks")

    def __init__(
        self,
        *,
        layers: dict[str, int],
        stages: dict[str, list[int]],
        num_classes: int | list[int],
        max_tasks: int,
        head: HeadKind | None = "ridge",
        context: ContextKind = "ridge",
        shift: bool = False,
        input_features: int | list[int] = 0,
        context_features: int | None = None,
        backbone_name: str = "",
        backbone_sha256: str = "",
    ) -> None:
        super().__init__()
        check_classes(num_classes, max_tasks)
        check_choice(get_args(HeadKind), head="ridge" if head is None else head)
        check_choice(get_args(ContextKind), context=context)
        self.config = {
            **{"layers": dict(layers), "stages": {name: list(stage) for name, stage in stages.items()}},
            **{"num_classes": num_classes, "max_tasks": max_tasks, "head": head, "context": context, "shift": shift},
            **{"input_features": input_features, "context_features": context_features},
            **{"backbone_name": backbone_name, "backbone_sha256": backbone_sha256},
        }
        self.built_on = repo if REPO.fullmatch(repo := backbone_name.partition("@")[0]) else ""
        means = [stage[0] for stage in stages.values()]
        spreads = [Stage(*stage).features for stage in stages.values() if Stage(*stage).spread]
        self.num_features, channels = sum(means + spreads), sum(layers.values())
        linear = [self.num_classes * sum(means), self.num_classes] if head else [0, 0]
        self._sizes = [channels, channels * shift, *linear]
        self.column = nn.Parameter(torch.zeros(sum(self._sizes)))
        self.columns = nn.Buffer(torch.zeros(max_tasks, sum(self._sizes)))
        self.status = nn.Buffer(torch.zeros(max_tasks, dtype=torch.uint8))
        self.backbone_id = nn.Buffer(torch.tensor(list(bytes.fromhex(backbone_sha256)), dtype=torch.uint8))
        self.heads = TaskHeads(head, means, spreads, input_features, classes_by_task(self.config), self.num_classes)
        self.context = AdapterContext(self.config, self.num_features, self)
        self.learning: int | None = None
        self.extractor: FeatureExtractor | None = None
        self._gates: dict[str, ChannelGate] = {}
        add_hooks(self)

    # What it is.

    @property
    def default_lr(self) -> float:
        """The learning rate of `dendrite_zoo.lightning_modules.ContinualClassifier`, where none is given.

        5e-3, less for more than twenty layers, whose gates all act on the output, one after another.
        """
        return min(5e-3, 0.1 / len(self.config["layers"]))

    @property
    def backbone(self) -> nn.Module:
        """The network that the dendrites are on.

        Raises:
            ValueError: there is none yet.
        """
        return self._extractor().backbone

    @property
    def num_classes(self) -> int:
        """Size of the output: the most classes of a task."""
        return size_of_output(self.config)

    @property
    def max_tasks(self) -> int:
        """How many tasks there is room for."""
        return self.context.max_tasks

    @property
    def num_tasks(self) -> int:
        """How many tasks were learned."""
        return self.context.num_tasks

    def attach(self: G, backbone: nn.Module) -> G:
        """Put in the network that an artifact names; it is frozen, in place, and stays in eval mode.

        Raises:
            ValueError: it is another one than the dendrites were learned on.
        """
        expected, found = self.config["backbone_sha256"], fingerprint(backbone.state_dict())
        if found != expected:
            named = f"{self.config['backbone_name'] or 'the backbone'} (sha256 {expected[:12]}...)"
            raise ValueError(
                f"Expected {named}, where these dendrites were learned, but got {type(backbone).__name__} of other "
                f"weights (sha256 {found[:12]}...). Build it as it was built then, with the same weights and precision."
            )
        modules = dict(backbone.named_modules())
        for name, number in self.config["layers"].items():
            channels = channels_of(modules[name]) if name in modules else None
            if channels is None or channels.number != number:
                raise wrong_argument("backbone", f"a network whose layer {name!r} has {number} channels", channels)
        for name in self.config["layers"]:
            self._gates[name] = ChannelGate(channels_of(modules[name]).dim)  # type: ignore[union-attr]
            modules[name].register_forward_hook(self._gates[name])
        for module in modules.values():
            if isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False  # its layers do not take them where they have hooks
            if type(module) in BATCH_NORMS:
                frozen = FrozenNorm()
                module.register_forward_pre_hook(frozen.before)
                module.register_forward_hook(frozen, prepend=True)
        stages = {name: Stage(*stage) for name, stage in self.config["stages"].items()}
        backbone.requires_grad_(False)
        self.extractor = FeatureExtractor(backbone, stages, self.heads.input_features).to(self.column.device).eval()
        return self

    def complete(self, backbone: nn.Module | None) -> None:
        """Attach the backbone that is given, else one that is registered; without either there is a warning."""
        backbone = build_backbone(self.config["backbone_name"]) if backbone is None else backbone
        if backbone is not None:
            self.attach(backbone)
        else:
            logger.warning("%s", self._missing())

    def start_task(self, task: int, batches: Iterable[Any]) -> None:
        """Begin with a task."""
        raise NotImplementedError

    # What it computes.

    def features(self, x: Any, task: int | None = None, *, inputs: bool = False) -> Tensor:
        """Features ``(B, F)`` of inputs, as gated in a task, or without gates where it is None.

        Args:
            x: as for `forward`.
            task: a task.
            inputs: whether numbers of the inputs follow, ``(B, F + I)``.
        """
        extractor = self._extractor()
        with nullcontext() if task is None else self._gated(task):
            features: Tensor = extractor(x, inputs=inputs)
        return features

    def forward(self, x: Any, task: int | Tensor | None = None) -> Tensor:
        """Logits ``(B, num_classes)``, or normalised gated features with ``head=None``: the means of all stages.

        Args:
            x: inputs as the backbone takes them: a tensor ``(B, ...)``, or a dictionary of keyword arguments.
            task: one, or one for each row ``(B,)``; inferred where None.

        Raises:
            ValueError: there is no backbone, or no such task; or the task cannot be inferred.
        """
        self.context.warn_of_unlearned(task)
        if isinstance(task, int) and not isinstance(task, bool) and 0 <= task < self.max_tasks:
            return self._output(x, task)
        ids = self.context.infer(x) if task is None else self.context.task_ids(task)
        distinct = ids.reshape(-1).unique().tolist()
        if ids.ndim and len(ids) != num_rows(x):
            raise wrong_argument("task", f"one task, or one for each of {num_rows(x)} rows", tuple(ids.shape))
        if len(distinct) < 2:  # none in an empty batch
            return self._output(x, *(distinct or [0]))
        parts = [self._output(rows_of(x, (ids == one).nonzero().flatten()), one) for one in distinct]
        order = torch.cat([(ids == one).nonzero().flatten() for one in distinct])
        return torch.cat(parts)[order.argsort().to(parts[0].device)]

    def _extractor(self) -> FeatureExtractor:
        if self.extractor is None:
            raise ValueError(f"Expected a model with its backbone, but got one without. {self._missing()}")
        return self.extractor

    def _missing(self) -> str:
        name = self.config["backbone_name"] or "a backbone without a name"
        remedy = "Load it with dendrite_zoo.load(..., backbone=network), or call model.attach(network)."
        return f"The dendrites were learned on {name}, which an artifact does not contain. {remedy}"

    @contextmanager
    def _gated(self, task: int, *, graph: bool = False, by_head: bool = False) -> Iterator[Mapping[str, ChannelGate]]:
        """The gates as they are in a task; with ``by_head`` as its head was solved, which may be without them."""
        gates, shifts, *_ = self._parts(task, graph)
        if by_head:
            gates, shifts = (part * (self.status[task] & WITHOUT_GATES == 0) for part in (gates, shifts))
        sizes = list(self.config["layers"].values())
        added: Any = shifts.split(sizes) if self.config["shift"] else [None] * len(sizes)
        factors = (2 * gates.sigmoid()).split(sizes)
        try:
            for gate, factor, shift in zip(self._gates.values(), factors, added, strict=True):
                gate.factor, gate.shift = factor, shift
            yield self._gates
        finally:
            for gate in self._gates.values():
                gate.factor = gate.shift = None

    def _output(self, x: Any, task: int) -> Tensor:
        learns = task == self.learning and torch.is_grad_enabled()
        if learns and self.training:
            return self._compute(x, task, graph=True, trains=True)
        # Without a graph, else a task would be computed by other kernels while it is the one that learns.
        output = self._compute(x, task)
        if torch.is_grad_enabled() and runs_eagerly():
            if learns:
                solved = self.heads.kind == "ridge" and bool(self.heads.is_solved[task])
                output = Again.apply(output, self.column, lambda: self._compute(x, task, graph=True), solved)
            elif self.training:
                output = NotLearning.apply(output, self.column, task, self.learning)
        return output

    def _compute(self, x: Any, task: int, *, graph: bool = False, trains: bool = False) -> Tensor:
        extractor = self._extractor()
        with self._gated(task, graph=graph, by_head=not trains):
            z = extractor(x, **self.heads.needs(trains))
        output: Tensor = self.heads(z, task, self._linear(task, graph=graph), trains=trains)
        if graph and self.config["head"] == "ridge":
            output = torch.where(left_out(x)[:, None], output.detach(), output)
        return output

    def _linear(self, task: int, *, graph: bool = False) -> tuple[Tensor, Tensor] | None:
        *_, weight, bias = self._parts(task, graph)
        own = self.heads.classes[task]
        return None if self.config["head"] is None else (weight.view(self.num_classes, -1)[:own], bias[:own])

    def _parts(self, task: int, graph: bool) -> tuple[Tensor, ...]:
        """Gates, shifts, and weight and bias of the linear head of a task; with a graph where they are to learn."""
        column = self.column if task == self.learning else self.columns[task]
        return (column if graph else column.detach()).split(self._sizes)

    def _moved(self, x: Any) -> Any:
        if isinstance(x, (tuple, list)):
            return [self._moved(part) for part in x]
        return map_tensors(lambda tensor: tensor.to(self.column.device), x)

    def train(self: G, mode: bool = True) -> G:
        """Set the mode of all but the backbone, which stays in eval mode."""
        super().train(mode)
        if self.extractor is not None:
            self.extractor.eval()
        return self

    @torch.no_grad()
    def merge(self) -> None:
        """Write the column that learns to its place among the columns; ``state_dict()`` does so, too."""
        if self.learning is not None:
            self.columns[self.learning] = self.column
