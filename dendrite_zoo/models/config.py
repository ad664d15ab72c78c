"""The arguments of models, each written once: checked, and captured as the config that an artifact holds."""

import contextlib
import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast

from dendrite_zoo._core.annotations import fits
from dendrite_zoo._core.checks import (
    check_choice,
    check_density,
    check_integers,
    check_positive,
    check_range,
    wrong_argument,
)
from dendrite_zoo._core.names import check_call, say_new_names
from dendrite_zoo.functional import Gate
from dendrite_zoo.hub.arguments import plain
from dendrite_zoo.models.overlap import units_needed
from dendrite_zoo.row_sparse.subnetworks import num_active

__all__ = ["MLPConfig"]

P = ParamSpec("P")
A = TypeVar("A", bound="Arguments")
Model = TypeVar("Model")


@dataclass(kw_only=True)
class Arguments:
    """The arguments of a network's constructor: each field is one, with its type and default; JSON values once made.

    Raises:
        ValueError: naming the first that is wrong: of another type, a size (an ``int``) below 1, a density outside
            (0, 1], a value that is none of a ``Literal``, or an empty list of hidden layers.
    """

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            with contextlib.suppress(AttributeError, RuntimeError, TypeError, ValueError):  # then it does not fit
                setattr(self, name, plain(getattr(self, name)))
            check_value(name, hint, getattr(self, name))
        layers = vars(self).get("hidden_features", (1,))
        if not layers:
            raise wrong_argument("hidden_features", "the units of at least one hidden layer", layers)
        for units in layers:
            check_integers(1, hidden_features=units)

    def as_config(self) -> dict[str, Any]:
        """The arguments as JSON values, in the order of the signature."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


def check_value(name: str, hint: Any, value: Any) -> None:
    """Refuse a value of an argument that is of another type, or out of range: a ValueError that names it."""
    if hint is int or (hint == int | None and value is not None):
        check_integers(0 if name in ("num_segments", "segment_seed", "seed") else 1, **{name: value})
    elif typing.get_origin(hint) is Literal:
        check_choice(typing.get_args(hint), **{name: value})
    elif not fits(value, hint):
        raise wrong_argument(name, f"of type {inspect.formatannotation(hint)}".replace("collections.abc.", ""), value)
    elif name.endswith("_density") and value is not None:
        check_density(**{name: value})


@say_new_names
@dataclass(kw_only=True)
class MLPConfig(Arguments):
    """The options that every network with active dendrites has beside its sizes.

    An option is added here, and used by `ActiveDendriteMLP`: then the MLP, the classifier, the policy and the critics
    have it as an argument, and their artifacts hold it. Defaults that differ are declared again, by the model.

    Args:
        num_segments: segments a unit; 0 for a network without dendrites.
        gate: see `dendrite_zoo.layers.ActiveDendriteLinear`.
        activation: ``"k-winners"`` or ``"relu"``.
        activation_density: share of the units of a hidden layer that win; None for the paper's 0.05, but of fewer than
            256 units more, up to 0.2, as fewer than ten units learn little.
        winners: what the winners of a hidden layer are chosen by: ``"activation"``, of each input anew (the paper's
            k-winners), or ``"context"``: see `ActiveDendriteMLP`.
        weight_density: share of inputs each hidden unit sees.
        segment_density: share of the context each segment sees.
        context_density: expected share of the context that is active, for the initialisation; None for 1 where contexts
            are one-hot, and 0.1 where they are prototypes.
        input_density: share of the inputs of hidden layers (but the first) and output that is active, for the
            initialisation; None for ``activation_density`` with k-winners, else 1.
        dendrite_layers: which hidden layers have dendrites, counted from 0; None for all.
        segment_seed: what the segments are drawn from where winners are chosen by the context, and segments are never
            trained; None draws one. An artifact holds this number in place of the segments.
        layer_norm: give the active units of each hidden layer zero mean and unit variance, before their nonlinearity
            (`dendrite_zoo.functional.active_layer_norm`); where units compete, all of them.
        overlap: with ``winners="context"`` and one-hot contexts, the share of a task's units that tasks before it use,
            too: 0 for disjoint subnetworks. Among the other units the dendrites choose as ever. None for as many as
            it happens to be.
        output_scale: factor of the initial weights of the output layer.
        output_bias: whether the output layer has a bias. Where each task has units of its own in every hidden layer, it
            is all that they share, and moves with whichever task changes most: leave it out there.
        additive_segments: give each context numbers of its own that are added to units and to the output layer (see
            `dendrite_zoo.models.additive.AdditiveSegments`), 0 at first. A new task whose gates alone reach too little,
            with ``learn="new"``, has in them what it needs; a model that is loaded with more tasks gets them.
    """

    num_segments: int | None = None
    gate: Gate = "abs_max"
    activation: Literal["k-winners", "relu"] = "k-winners"
    activation_density: float | None = None
    winners: Literal["activation", "context"] = "activation"
    weight_density: float = 0.5
    segment_density: float = 1.0
    context_density: float | None = None
    input_density: float | None = None
    dendrite_layers: Sequence[int] | None = None
    segment_seed: int | None = None
    layer_norm: bool = False
    overlap: float | None = None
    output_scale: float = 1.0
    output_bias: bool = True
    additive_segments: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation_density is None:
            narrowest = min(vars(self)["hidden_features"])
            self.activation_density = default_density(narrowest) if self.overlap is None else 0.05
        check_integers(0, 2**31 - 1, segment_seed=self.segment_seed or 0)  # as in a config.json
        last = len(vars(self)["hidden_features"]) - 1
        if any(layer not in range(last + 1) for layer in self.dendrite_layers or ()):
            expected, remedy = f"hidden layers from 0 to {last}", "Give dendrite_layers=None for all of them."
            raise wrong_argument("dendrite_layers", expected, self.dendrite_layers, remedy)
        if self.winners == "context":
            remedy = "Or leave `winners` out."
            if self.activation != "k-winners":
                raise wrong_argument("activation", "'k-winners' with winners='context'", self.activation, remedy)
            if self.num_segments == 0:
                raise wrong_argument("num_segments", "at least 1 with winners='context'", 0, remedy)
            if self.additive_segments:
                expected = "False with winners='context', where a task has units of its own"
                raise wrong_argument("additive_segments", expected, True, remedy)
        elif self.segment_seed is not None:
            raise wrong_argument("segment_seed", "None unless winners='context'", self.segment_seed, "Leave it out.")
        check_positive(output_scale=self.output_scale)
        if self.overlap is not None:
            check_range(0, 1, overlap=self.overlap)
            if self.winners != "context" or self.segment_density != 1:
                got = f"{self.winners!r} and {self.segment_density}. Leave `overlap` out."
                raise ValueError(f"Expected winners='context' and segment_density=1 with `overlap`, but got {got}")

    def options(self, **changes: Any) -> dict[str, Any]:
        """The options alone, as arguments of an `ActiveDendriteMLP`."""
        return {field.name: getattr(self, field.name) for field in fields(MLPConfig)} | changes


def default_density(units: int) -> float:
    """The share of units that wins in a network whose narrowest hidden layer has so many, where nobody says it."""
    return min(0.2, max(0.05, 12.8 / units))


@dataclass(kw_only=True)
class MLPArguments(MLPConfig):
    """The arguments of `ActiveDendriteMLP`."""

    in_features: int = field(kw_only=False)
    hidden_features: Sequence[int] = field(kw_only=False)
    out_features: int = field(kw_only=False)
    context_dim: int
    num_segments: int = field()
    context_density: float = 0.1

    @property
    def active_inputs(self) -> float:
        """The share of inputs that is active, of hidden layers but the first and of the output."""
        if self.input_density is not None:
            return self.input_density
        return cast(float, self.activation_density) if self.activation == "k-winners" else 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for number, units in enumerate(self.hidden_features):
            if self.overlap is None or (self.dendrite_layers is not None and number not in self.dendrite_layers):
                continue
            active = num_active(cast(float, self.activation_density), units)
            needed = units_needed(active, self.context_dim, self.overlap)
            if needed > units:
                wider = f"hidden_features={needed} and activation_density={active / needed:.5g}, which leaves {active}"
                remedy = f"Give {wider} units active, or lower `activation_density` alone, or raise `overlap`."
                tasks = f"at least {needed} for {self.context_dim} tasks with overlap={self.overlap}"
                raise wrong_argument("hidden_features", tasks, units, remedy)


def takes(arguments: Callable[P, A]) -> Callable[[Callable[[Model, A], None]], Callable[Concatenate[Model, P], None]]:
    """Turn a constructor that takes one object of arguments into one that takes the arguments themselves.

    Signature, types and help are those of the dataclass, for editors, ``inspect`` and command lines alike.

    Example:
        >>> @dataclass
        ... class NetworkArguments(Arguments):
        ...     hidden_features: tuple[int, ...] = (8, 8)
        >>> class Network:
        ...     @takes(NetworkArguments)
        ...     def __init__(self, config: NetworkArguments) -> None:
        ...         self.config = config.as_config()
        >>> inspect.signature(Network)
        <Signature (hidden_features: tuple[int, ...] = (8, 8)) -> None>
        >>> Network(hidden_features=(3,)).config
        {'hidden_features': [3]}
    """
    cls: Any = arguments
    hints, signature = typing.get_type_hints(cls), inspect.signature(cls.__init__)
    typed = [p.replace(annotation=hints.get(name, p.annotation)) for name, p in signature.parameters.items()]

    def decorate(init: Callable[[Model, A], None]) -> Callable[Concatenate[Model, P], None]:
        def __init__(self: Model, /, *args: P.args, **kwargs: P.kwargs) -> None:
            check_call(type(self).__name__, signature, args, kwargs)
            init(self, arguments(*args, **kwargs))

        function: Any = functools.update_wrapper(__init__, init)
        function.__signature__ = signature.replace(parameters=typed)
        function.__annotations__ = hints
        function.__doc__ = next((c.__doc__ for c in cls.__mro__ if "Args:" in (c.__doc__ or "")), init.__doc__)
        return __init__

    return decorate
