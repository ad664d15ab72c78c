"""What a new task of a network learns where nothing that an earlier task uses may change."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dendrite_zoo._core.torch import has_statistics
from dendrite_zoo.contexts import OneHotContext, TaskContext
from dendrite_zoo.layers import ActiveDendriteConv2d, ActiveDendriteLinear
from dendrite_zoo.lightning_modules.new_subnetworks import with_subnetwork
from dendrite_zoo.lightning_modules.part_numbers import NewPart
from dendrite_zoo.lightning_modules.starts import shared_units
from dendrite_zoo.models import ActiveDendriteMLP
from dendrite_zoo.models.additive import AdditiveSegments
from dendrite_zoo.models.growth import copy_columns, copy_subnetwork

Places: TypeAlias = dict[str, tuple[Tensor, Tensor]]
"""By name of a parameter, the places of some of its numbers, and which of them no earlier task uses."""

FROZEN = "_frozen_parts"  # the attribute of a network that lists what does not learn; also after a fit that raised


class Frozen(list[nn.Parameter | nn.Module]):
    """What does not learn for now. In a copy of the network it does: nobody would let it learn again."""

    def thaw(self) -> None:
        """Let it learn."""
        for frozen in self:
            frozen.train() if isinstance(frozen, nn.Module) else frozen.requires_grad_(True)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        Frozen(copy.deepcopy(list(self), memo)).thaw()
        return Frozen()


class NewParts(nn.Module):
    """The parts of a network that a new task has for itself, each a parameter of its own: all that is trained.

    With one-hot contexts these are the task's columns of the segments, and of additive ones. Where winners are chosen
    by the context, they are the weights in the task's subnetwork that are in no earlier task's, and the biases of units
    that are in none.
    In a classifier, the rows of classes that were never trained belong to them, too.

    All other parameters require no gradient and are in no optimizer, so that no momentum, weight decay or average can
    move them. After each step the values are written into the network, which is whole at any time: ``state_dict()`` and
    files contain ``segments (U, S, C)`` and nothing else.

    Args:
        model: the network.
        context: where its contexts come from; None where they are one-hot ids.
        head: the names of the parameters of an output layer with a row a class, or none.

    Attributes:
        tasks: whose parts these are.
        earlier: the tasks whose parts do not change.
        classes: of each class ``(num_classes,)`` 1 where the tasks have it for themselves, 0 where an earlier one had
            it, -1 where none has had it yet; or None.
        is_whole: whether there is no earlier task, and all of the network is new.
        is_one_hot: whether contexts are one-hot ids.

    Raises:
        ValueError: no part of the network belongs to one task.

    Example:
        >>> from dendrite_zoo.models import ActiveDendriteMLP
        >>> model = ActiveDendriteMLP(4, [20], 2, context_dim=3, num_segments=5)
        >>> new = NewParts(model)
        >>> new.own([2])
        >>> [(part.name, part.value.shape) for part in new.parts]
        [('hidden.0.segments', torch.Size([100]))]
    """

    def __init__(self, model: nn.Module, context: TaskContext | None = None, *, head: Sequence[str] = ()) -> None:
        super().__init__()
        self._model, self._context = (model,), (context,)  # no submodules: they are those of the LightningModule
        self._head = head
        self._began: list[Tensor] = []  # what the parts were when they were owned
        self.parts = nn.ModuleList()
        self.tasks: tuple[int, ...] = ()
        self.earlier: tuple[int, ...] = ()
        self.classes: Tensor | None = None
        self.is_whole = False
        self.is_one_hot = context is None or isinstance(context, OneHotContext)
        if not self._subnetworks and not (self.is_one_hot and (self._segments or self.additive)):
            raise ValueError(
                f"Expected a network with a part for each task, but got {type(model).__name__} without one: a one-hot "
                "context multiplies a column of the segments that is its task's alone, where any other reaches all of "
                "them, so that no task could learn without a change of another's. For learn='new' build it with "
                "one-hot contexts and num_segments of 1 or more (context='one-hot' of a classifier), or with "
                "winners='context'; or use learn='all'."
            )
        self.own([0])  # whoever copies the module now has as many parameters
        thaw(model)

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self._model[0]

    @property
    def has_columns(self) -> bool:
        """Whether a task has columns of segments, and no subnetwork."""
        return not self._subnetworks

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained."""
        whole = (parameter.numel() for parameter in self.model.parameters())
        return sum(whole if self.is_whole else (int(part.free.sum()) for part in self._parts))

    def without_parts(self) -> list[int]:
        """The tasks that have nothing for themselves: all of their subnetworks is in those of earlier ones."""
        if self.is_whole or self.has_columns:
            return []
        free = {part.name: part.ids[part.free] for part in self._parts}
        return [t for t in self.tasks if not any(torch.isin(ids, free[n]).any() for n, ids in self.active(t))]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network gives, with the gradient of the parts alone."""
        values = {part.name: part.of(self.model.get_parameter(part.name)) for part in self._owned}
        if not kwargs and (own := with_subnetwork(self.model, self.tasks, args, values)) is not None:
            return self.model(*own)
        merged = {part.name: self._merged(part) for part in self._owned}
        return functional_call(self.model, merged, args, kwargs)

    def own_all(self) -> None:
        """Let all of the network be trained."""
        thaw(self.model)
        self.requires_grad_(False).is_whole = True

    @torch.no_grad()
    def own(self, tasks: Sequence[int], earlier: Iterable[int] = (), classes: Tensor | None = None) -> None:
        """Take the parts of some tasks, as they are in the network, and let nothing else be trained.

        Args:
            tasks: the tasks.
            earlier: tasks whose parts do not change.
            classes: whose the classes are, where the network has a head.
        """
        self.tasks, self.earlier, self.classes = tuple(tasks), tuple(earlier), classes
        self.is_whole = False
        self._freeze()
        self.requires_grad_(True)
        places = self._places()
        if [(part.name, len(part.value)) for part in self._parts] != [(n, len(ids)) for n, (ids, _) in places.items()]:
            named = ((name, len(ids), self.model.get_parameter(name)) for name, (ids, _) in places.items())
            self.parts = nn.ModuleList(NewPart(name, size, like.detach()) for name, size, like in named)
        for part, (ids, free) in zip(self._parts, places.values(), strict=True):
            part.ids, part.free = ids, free
        self._read()
        self._began = [part.value.detach().clone() for part in self._parts]

    @torch.no_grad()
    def start_from(self, start: int | None, task: int) -> None:
        """Let one of the tasks start as another does, by a copy of its columns of segments, or of its subnetwork.

        With None columns start from zeros, and a subnetwork as it was when it was owned.

        Raises:
            ValueError: the task's subnetwork has units that an earlier task uses.
        """
        if self.has_columns:
            copy_columns(self.model, start, task)
            self._read()
        else:
            self._copy_subnetwork(start, task)

    def _copy_subnetwork(self, start: int | None, task: int) -> None:
        free, own = {part.name: part.ids[part.free] for part in self._parts}, dict(self.active(task))
        if not all(torch.isin(ids, free[name]).all() for name, ids in own.items() if name not in self._head):
            raise ValueError(shared_units("a task"))
        for network in self._subnetworks.values():
            if start is not None:
                copy_subnetwork(network, self._context_of(start), self._context_of(task))
        for part, began in zip(self._parts, self._began, strict=True):
            ids = torch.isin(part.ids, own.get(part.name, part.ids[:0]))
            part.value[ids] = began[ids] if start is None else self._flat(part)[part.ids[ids]]
        self.merge()

    def _read(self) -> None:
        for part in self._parts:
            part.value.copy_(self._flat(part).index_select(0, part.ids))

    @torch.no_grad()
    def merge(self, *_: Any) -> None:
        """Write the values into the network."""
        for part in self._owned:
            flat = self._flat(part)
            flat.index_copy_(0, part.ids, part.of(flat))

    def fix_statistics(self) -> None:
        """Keep the statistics of norms, batch and spectral ones too, which those of a new task would replace."""
        learning = (module for module in self.model.modules() if module.training and not self.is_whole)
        self._hold(module.eval() for module in learning if has_statistics(module))

    def state(self) -> dict[str, Any]:
        """Whose parts are trained, as JSON primitives."""
        owned = {"is_whole": self.is_whole, "tasks": list(self.tasks), "earlier": list(self.earlier)}
        return owned | {"classes": None if self.classes is None else self.classes.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Own again what was owned in such a state; call it once more when the network has its weights."""
        if state["is_whole"]:
            return self.own_all()
        classes = None if state["classes"] is None else torch.tensor(state["classes"])
        self.own(state["tasks"], state["earlier"], classes)

    def _freeze(self) -> None:
        self._hold(cast(nn.Parameter, p.requires_grad_(False)) for p in self.model.parameters() if p.requires_grad)

    def _hold(self, parts: Iterable[nn.Parameter | nn.Module]) -> None:
        vars(self.model).setdefault(FROZEN, Frozen()).extend(parts)

    @property
    def _owned(self) -> list[NewPart]:
        return [] if self.is_whole else self._parts

    @property
    def _parts(self) -> list[NewPart]:
        return list(self.parts)  # type: ignore[arg-type]

    @property
    def _subnetworks(self) -> dict[str, ActiveDendriteMLP]:
        found = {name: part for name, part in self.model.named_modules() if isinstance(part, ActiveDendriteMLP)}
        return {name: part for name, part in found.items() if part.config["winners"] == "context"}

    @property
    def _segments(self) -> list[str]:
        kinds = ActiveDendriteLinear, ActiveDendriteConv2d
        layers = ((name, part) for name, part in self.model.named_modules() if isinstance(part, kinds))
        return [f"{name}.segments".lstrip(".") for name, layer in layers if layer.segments is not None]

    @property
    def additive(self) -> list[str]:
        """The names of the parameters that are additive segments."""
        found = ((name, part) for name, part in self.model.named_modules() if isinstance(part, AdditiveSegments))
        return [f"{name}.{own}".lstrip(".") for name, part in found for own, _ in part.named_parameters()]

    def _flat(self, part: NewPart) -> Tensor:
        return self.model.get_parameter(part.name).detach().view(-1)

    def _merged(self, part: NewPart) -> Tensor:
        parameter = self.model.get_parameter(part.name)
        return parameter.detach().view(-1).index_copy(0, part.ids, part.of(parameter)).view_as(parameter)

    def _places(self) -> Places:
        places = {} if self.has_columns else self._places_of_subnetworks()
        for name in (*self._segments, *self.additive) if self.has_columns else ():
            ids = self._columns(name, self.tasks)
            places[name] = ids, torch.ones_like(ids, dtype=torch.bool)
        for name in self._head:
            parameter = self.model.get_parameter(name)
            classes = torch.zeros(len(parameter), dtype=torch.long) if self.classes is None else self.classes
            ids, free = places.get(name) or (_places_in(parameter, ...), torch.zeros(1, dtype=torch.bool))
            rows = classes.to(parameter.device)[ids // parameter[0].numel()]
            places[name] = ids, (free.to(rows.device) | (rows > 0)) & (rows >= 0)
        return places

    def _places_of_subnetworks(self) -> Places:
        places: Places = {}
        of_task = {task: dict(self.active(task)) for task in (*self.tasks, *self.earlier)}
        for name in of_task[self.tasks[0]]:
            used = torch.zeros_like(self.model.get_parameter(name), dtype=torch.bool).view(-1)
            for task in self.earlier:
                used[of_task[task][name]] = True
            ids = torch.cat([of_task[task][name] for task in self.tasks])
            ids = ids if len(self.tasks) == 1 else ids.unique()  # which waits for a device
            places[name] = ids, ~used[ids]
        return places

    def active(self, task: int) -> Iterator[tuple[str, Tensor]]:
        """The places in each parameter that a task uses."""
        for prefix, network in self._subnetworks.items():
            for name, index in network.active_parameters(self._context_of(task)).items():
                name = f"{prefix}.{name}".lstrip(".")
                yield name, _places_in(self.model.get_parameter(name), index)

    def _context_of(self, task: int) -> Tensor | int:
        (context,) = self._context
        return task if context is None else cast(Tensor, context(context.counts, task))

    def _columns(self, name: str, tasks: Sequence[int]) -> Tensor:
        ids = _places_in(self.model.get_parameter(name), ...).view_as(self.model.get_parameter(name))
        return torch.cat([ids[..., task].reshape(-1) for task in tasks])


def thaw(model: nn.Module) -> None:
    """Let all of a network learn again that did before parts of it were trained."""
    vars(model).pop(FROZEN, Frozen()).thaw()


def _places_in(parameter: Tensor, index: Any) -> Tensor:
    """The places of ``parameter[index]`` in the flattened parameter."""
    return torch.arange(parameter.numel(), device=parameter.device).view_as(parameter)[index].reshape(-1)
