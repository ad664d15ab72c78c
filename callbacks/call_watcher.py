"""What a network calls while it runs: its modules, and the activation functions in their forwards."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as modules
from torch.overrides import TorchFunctionMode

from dendrite_zoo._core.torch import hook_all_modules, in_backward, insert_mode, remove_mode
from dendrite_zoo.callbacks.activation import (
    ACTIVATION_OF,
    UNIT_OF,
    Activation,
    Place,
    count_active,
    is_activation,
    is_countable,
    is_number,
)
from dendrite_zoo.callbacks.layer_selection import ACTIVATIONS, Layers, layer_filter, named_layers, watched_outputs
from dendrite_zoo.layers import KWinners

Step = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], None]

FUSED = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)
"""They take another path of computation where a mode watches functions."""
BETWEEN = {modules.__file__, F.__file__, torch.overrides.__file__, __file__}
"""Files that lie between the code of a network and a hook or mode."""


_ENTERED: set[CallWatcher] = set()
_STANCE = ExitStack()


def _run_as_written(watcher: CallWatcher, entered: bool) -> None:
    """Nothing runs compiled while a watcher is entered; several may leave in any order."""
    if entered and not _ENTERED:
        _STANCE.enter_context(torch.compiler.set_stance("force_eager"))
    (_ENTERED.add if entered else _ENTERED.discard)(watcher)
    if not _ENTERED:
        _STANCE.close()


class _Known:
    """What is known of a module before it runs: its names by the module that each stands in, and what to look at."""

    def __init__(self, module: nn.Module, *, watched: bool = False) -> None:
        self.names: dict[str, str] = {}
        self.watched = watched  # its output
        self.is_layer = _first(module.parameters(recurse=False)) and not _first(module.children())
        self.fused = isinstance(module, FUSED)
        own = type(module).__module__.startswith("dendrite_zoo.")  # its activations are modules, its functions gates
        self.silent = own or self.fused  # its functions are not looked at
        self.may_skip_its_parts = getattr(type(module), "forward", None) is nn.TransformerEncoderLayer.forward


class _Call:
    """A module that is running; the first of all is the step, which runs outside of all forwards."""

    def __init__(self, module: nn.Module | None, name: str | None, *, watched: bool, silent: bool, fused: bool) -> None:
        self.module, self.name, self.watched, self.silent, self.fused = module, name, watched, silent, fused
        self.step = False
        self.after = ""  # the module that ran last in it
        self.output: Tensor | None = None  # of a layer that ran last in a step
        self.seen: list[Activation] = []


class CallWatcher:
    """Counts, while it is entered, in how many samples each unit of each activation is active.

    An activation is an activation module (our ``KWinners``, ``nn.ReLU``, ...), or a function of that kind (``F.relu``,
    ``torch.relu``, ``x.relu()``, ``F.gelu``, ...) that is called in a module's forward. Outside of forwards, as in a
    ``validation_step``, one counts that is called with the very output of a layer, as ``F.relu(self.conv(x))``; others
    may belong to a loss, such as ``F.relu(1 - logits)``. A module without a parameter that gives one number is a loss,
    too. One that is run again for its gradient (``torch.utils.checkpoint``) counts once.

    A unit is one of the dimension that the layer before made: a feature after a linear layer, a channel after a
    convolution or a norm of channels; where that cannot be, a channel of 4 or 5 dimensions, else one of the last
    dimension; of our ``KWinners`` one of its ``dim``. All other dimensions are samples.

    ``nn.TransformerEncoderLayer`` computes all of itself in one fused function in eval mode, where no activation can be
    seen. Its output stays that function's; the layer is run once more, step by step, to count. What ``torch.compile``
    has compiled runs as written meanwhile.

    Global hooks of modules and a ``TorchFunctionMode`` do this: nothing in the network is touched.

    Args:
        model: the network.
        layers: narrows it, as in `dendrite_zoo.callbacks.layer_selection.layer_filter`.
        skip: names of modules that are counted elsewhere.
        on_call: called with name, module, arguments and keyword arguments of each module that ran.

    Attributes:
        seen: the activations of the steps so far, in the order in which they ran.
        uncountable: names of layers whose outputs are no plain tensors, or were used within ``torch.func``.
        outside: functions that were called outside of all forwards, and were not counted.
        redirected: the first call of the network itself is a step, as under DDP.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> watcher = CallWatcher(net)
        >>> with watcher:
        ...     _ = net(torch.zeros(5, 2))
        >>> [(seen.place.layer, tuple(seen.active.shape), seen.samples) for seen in watcher.seen]
        [('1', (3,), 5)]
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers | None = None,
        *,
        skip: Callable[[str], bool] = lambda name: False,
        on_call: Step = lambda *call: None,
    ) -> None:
        watched = layer_filter(model, layers)
        self.model, self.layers, self.on_call = model, layers, on_call
        self.seen: list[Activation] = []
        self.uncountable: set[str] = set()
        self.outside: set[str] = set()
        self.redirected = False
        self._watched = cache(lambda name: watched(name) and not skip(name))
        self._find_modules()
        self._mode, self._depth = _Functions(self), -1
        if any("_orig_mod" in name for name, _ in model.named_modules()):  # both calls of a compiled module are awaited
            warnings.filterwarnings("ignore", r"Using `torch.compile\(module\)` when there are global hooks")
        self._entered = ExitStack()

    def __enter__(self) -> CallWatcher:
        self._thread = threading.get_ident()
        self._calls = [self._step(None)]
        self._step_follows = self.redirected
        self._unit = (0, 0, 0)
        with ExitStack() as stack:
            _run_as_written(self, True)
            stack.callback(_run_as_written, self, False)
            stack.callback(hook_all_modules(self._start, self._end))
            self._mode.__enter__()
            self._paused = False
            stack.callback(self._pause, True)
            self._pause(self._calls[0].silent)
            self._entered = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.close()
        self.seen += self._calls[0].seen

    def _find_modules(self) -> None:
        outputs = set(watched_outputs(self.model, self.layers).values())
        self._known: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()
        for name, module in named_layers(self.model, shared=True).items():
            if module not in self._known:
                self._known[module] = _Known(module, watched=module in outputs)
            self._known[module].names.setdefault(name.rpartition(".")[0], name)
        self._layers_in_step = any(
            self._known[child].is_layer for child in self.model.children() if child in self._known
        )

    def _know(self, module: nn.Module) -> _Known:
        known = self._known.get(module)
        if known is None:
            self._find_modules()  # it may have been made since
            known = self._known.setdefault(module, _Known(module))
        return known

    def _step(self, module: nn.Module | None) -> _Call:
        """What runs outside of forwards; its functions matter where a layer can be called in it."""
        step = _Call(module, "", watched=False, silent=not self._layers_in_step, fused=False)
        step.step = True
        return step

    def _start(self, module: nn.Module, args: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        known = self._know(module)
        name = known.names.get(self._calls[-1].name or "") or next(iter(known.names.values()), None)
        watched = known.watched and name is not None and self._watched(name)
        call = _Call(module, name, watched=watched, silent=known.silent, fused=known.fused)
        if self._step_follows and module is self.model:
            call, self._step_follows = self._step(module), False
        self._calls.append(call)
        self._pause(call.silent)

    def _end(self, module: nn.Module, args: Any, *rest: Any) -> None:
        """Take in what a module did; after an exception there are neither keyword arguments nor an output."""
        if threading.get_ident() != self._thread or self._calls[-1].module is not module:
            return
        call, parent = self._calls[-1], self._calls[-2]
        if len(rest) == 2:
            if call.name is not None:
                self._take_in(call, parent, args, *rest)
            if call.seen and (not is_number(rest[1]) or _first(module.parameters())):  # else it is a loss
                parent.seen += call.seen
        self._calls.pop()
        parent.after = call.name or parent.after
        if parent.fused:
            parent.silent = parent.fused = False  # it goes step by step
        self._pause(parent.silent)

    def _take_in(self, call: _Call, parent: _Call, args: Any, kwargs: Any, output: Any) -> None:
        module, name = call.module, str(call.name)
        assert module is not None
        known = self._known[module]
        if known.may_skip_its_parts and not call.after and self._watches_in_fused(name):
            self._pause(False)
            module.forward(*args, **kwargs)
        if call.watched or (call.seen and self._watched(name) and is_activation(module, args, output)):
            call.seen.clear()
            self._count(parent, name, output, module.dim if isinstance(module, KWinners) else None)
        if parent.step:
            parent.output = output if known.is_layer else None
        self.on_call(name, module, args, kwargs)

    def _watches_in_fused(self, name: str) -> bool:
        return any(self._watched(f"{name}.{part}") for part in ("activation", "relu", "gelu"))

    def _function(self, name: str, given: Any, output: Any) -> None:
        """Take in an activation function that was called."""
        call = self._calls[-1]
        layer = f"{call.name}.{name}".lstrip(".")
        if call.name is None or call.watched or isinstance(given, nn.Parameter) or not self._watched(layer):
            return
        if isinstance(call.module, ACTIVATIONS):
            return
        if call.step and given is not call.output:
            self.outside.add(name)
        else:
            self._count(call, layer, output)

    def _count(self, call: _Call, layer: str, output: Any, unit: int | None = None) -> None:
        if not isinstance(output, Tensor) or is_number(output) or in_backward():
            return
        if not is_countable(output):
            self.uncountable.add(layer)
            return
        if output.is_nested:
            output = torch.cat(list(output.unbind()))
        if unit is None:
            ndim, dim, size = self._unit
            fits = output.ndim == ndim and output.shape[dim] == size
            unit = dim if fits else 1 if output.ndim in (4, 5) else -1
        place = Place(layer, call.name or "", call.after, _line())
        call.seen.append(Activation(place, *count_active(output, unit)))

    def _pause(self, pause: bool) -> None:
        """Take the mode out of torch's stack, or put it back."""
        if pause and not self._paused:
            self._depth = remove_mode(self._mode)
        elif self._paused and not pause:
            insert_mode(self._mode, self._depth)
        self._paused = pause


class _Functions(TorchFunctionMode):
    """Tells a watcher of each function that is called."""

    def __init__(self, watcher: CallWatcher) -> None:
        self.watcher = watcher

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in UNIT_OF and isinstance(output, Tensor) and not output.is_nested:
            dim = UNIT_OF[func]
            self.watcher._unit = output.ndim, dim, output.shape[dim]
        elif func in ACTIVATION_OF:
            self.watcher._function(ACTIVATION_OF[func], args[0] if args else (kwargs or {}).get("input"), output)
        return output


def _first(items: Iterator[object]) -> bool:
    """Whether there is one."""
    return next(items, None) is not None


def _line() -> str:
    """The place in the code of the network that called a module or function."""
    frame: Any = inspect.currentframe()
    while frame.f_back is not None and frame.f_code.co_filename in BETWEEN:
        frame = frame.f_back
    return f"{frame.f_code.co_name}:{frame.f_lasti}"
