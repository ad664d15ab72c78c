"""Corners of torch that have private names only, and what holds in a version that lacks one."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.utils._foreach_utils
from torch import Tensor, nn, overrides
from torch.nn.modules import module as modules
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.overrides import TorchFunctionMode

M = TypeVar("M", bound="KeepsPrecision")


def for_each(operation: str, *arguments: Sequence[Tensor] | float, **keywords: float) -> Any:
    """Apply an operation to many tensors at once, which takes one kernel for all of them; without that, one by one.

    Args:
        operation: the name of a method of tensors; with an underscore at its end it works in place.
        *arguments: lists of tensors, one of each for each call; or a number for all.
        **keywords: for all calls.

    Example:
        >>> for_each("lerp", [torch.zeros(2)], [torch.ones(2)], 0.25)
        [tensor([0.2500, 0.2500])]
    """
    together = getattr(torch, f"_foreach_{operation}", None)
    if together is not None:
        results = together(*arguments, **keywords)
    else:
        columns = (itertools.repeat(given) if isinstance(given, (int, float)) else given for given in arguments)
        results = [getattr(first, operation)(*others, **keywords) for first, *others in zip(*columns, strict=False)]
    return None if operation.endswith("_") else list(results)


def lying_in(modules: Iterable[nn.Module]) -> list[Any]:
    """The modules and parameters that lie in each of some modules itself, many times as fast as ``named_parameters``.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> [part is own for part, own in zip(lying_in([nn.Sequential(layer), layer]), [layer, *layer.parameters()])]
        [True, True, True]
    """
    return [part for module in modules for parts in (module._modules, module._parameters) for part in parts.values()]


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Within it, a module and all its parts are in eval mode; then each is in the mode that it was in.

    Example:
        >>> network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> with in_eval_mode(network):
        ...     network.training, network[0].training
        (False, False)
        >>> network.training, network[0].training, network[1].training
        (True, True, False)
    """
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile`, or a module's own ``compile``, was applied to it."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def compiled_part(module: nn.Module) -> str | None:
    """The name of a part of a module that `torch.compile` has wrapped; None where there is none.

    Example:
        >>> compiled_part(nn.Sequential(nn.ReLU(), torch.compile(nn.Linear(1, 1), backend="eager")))
        '1'
    """
    parts = (name for name, part in module.named_modules() if name and hasattr(part, "_orig_mod"))
    return next(parts, None)


def compiled_in_place(module: Any, kind: type[Any]) -> Any:
    """The module of a kind that `torch.compile` has wrapped, compiled as by its own ``compile``; any other as it is."""
    original: Any = getattr(module, "_orig_mod", None)
    if not (isinstance(original, kind) and hasattr(module, "dynamo_ctx")):
        return module
    original._compiled_call_impl = module.dynamo_ctx(original._call_impl)  # as its `compile` does
    return original


HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def is_mere_relu(function: Any) -> bool:
    """Whether to call something is `torch.relu` and no more: an `nn.ReLU` that nobody watches by hooks.

    Example:
        >>> watched = nn.ReLU()
        >>> handle = watched.register_forward_hook(lambda module, inputs, output: None)
        >>> is_mere_relu(nn.ReLU()), is_mere_relu(watched)
        (True, False)
    """
    if type(function) is not nn.ReLU or modules._has_any_global_hook():
        return False
    return not any(getattr(function, name, None) for name in HOOKS)


def has_statistics(module: nn.Module) -> bool:
    """Whether a module changes numbers by itself in training: batch, instance and spectral norms do."""
    kinds = nn.modules.batchnorm._NormBase, nn.utils.parametrizations._SpectralNorm, SpectralNorm
    return any(isinstance(one, kinds) for one in (module, *module._forward_pre_hooks.values()))


def sparse_indices(tensor: Tensor) -> Tensor:
    """The indices ``(D, N)`` of a sparse tensor as they are, sorted or not, where torch's public method refuses."""
    return tensor._indices() if hasattr(tensor, "_indices") else tensor.coalesce().indices()


def sparse_values(tensor: Tensor) -> Tensor:
    """The values ``(N, ...)`` that belong to `sparse_indices`."""
    return tensor._values() if hasattr(tensor, "_values") else tensor.coalesce().values()


def version_of(tensor: Tensor) -> Any:
    """What changes with every operation in place, but for fused optimizers and writes through ``.data``.

    In a version of torch without such a number, what is new each time: nothing counts as unchanged.
    """
    return 0 if tensor.is_inference() else getattr(tensor, "_version", object())


def transforms_active() -> bool:
    """Whether code runs inside ``torch.func`` (``vmap``, ``grad``); taken for true where torch does not say."""
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    return True if active is None else bool(active())


def in_backward() -> bool:
    """Whether autograd is at work, as when a checkpointed module runs again; False where torch does not say."""
    task = getattr(torch._C, "_current_graph_task_id", None)
    return task is not None and task() != -1


def remove_mode(mode: TorchFunctionMode) -> int:
    """Take a mode out of the stack of those that are entered, wherever it lies in it.

    Without torch's private access to the stack, the mode must have been entered last.

    Args:
        mode: one that was entered.

    Returns:
        Where it was, for `insert_mode`.
    """
    if not hasattr(overrides, "_pop_mode"):
        mode.__exit__(None, None, None)
        return -1
    above = []
    while torch._C._len_torch_function_stack() and (top := overrides._pop_mode()) is not mode:
        above.append(top)
    depth = torch._C._len_torch_function_stack()
    for other in reversed(above):
        overrides._push_mode(other)
    return depth


def insert_mode(mode: TorchFunctionMode, depth: int) -> None:
    """Put a mode back to where `remove_mode` found it."""
    if depth < 0:
        mode.__enter__()
        return
    above = [overrides._pop_mode() for _ in range(torch._C._len_torch_function_stack() - depth)]
    for other in (mode, *reversed(above)):
        overrides._push_mode(other)


def hook_all_modules(before: Callable[..., None], after: Callable[..., None]) -> Callable[[], None]:
    """Call functions before and after every module that runs, in the whole process, until what is returned is called.

    Args:
        before: called with the module and its positional arguments.
        after: called with the module, its positional and keyword arguments and its output; where it failed, with the
            module, its positional arguments and None.
    """
    first = modules.register_module_forward_pre_hook(before)
    second = modules.register_module_forward_hook(after, with_kwargs=True, always_call=True)

    def remove() -> None:
        first.remove()
        second.remove()
        # torch forgets this mark, by which compiled modules take the hook to be there still
        getattr(modules, "_global_forward_hooks_with_kwargs", {}).pop(second.id, None)

    return remove


def remove_forward_hooks(module: nn.Module, kinds: tuple[type, ...]) -> None:
    """Take hooks of some classes away from a module and all that are in it.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> handle = layer.register_forward_hook(nn.Identity())
        >>> remove_forward_hooks(layer, (nn.Identity,))
        >>> len(layer._forward_hooks)
        0
    """
    for part in module.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            for number, hook in list(hooks.items()):
                if isinstance(getattr(hook, "__self__", hook), kinds):
                    del hooks[number]


def fused_devices() -> Sequence[str]:
    """The types of devices on which torch's optimizers have one kernel for all parameters."""
    known = getattr(torch.utils._foreach_utils, "_get_fused_kernels_supported_devices", None)
    return ("cpu", "cuda", "mps", "xpu") if known is None else known()


def off_meta(before: Mapping[str, Tensor | None], module: nn.Module) -> list[str]:
    """The names of a module's own buffers that lay on the meta device: after ``to_empty`` they are random memory.

    Args:
        before: its buffers until then.
        module: as it is now.
    """
    moved = [name for name, old in before.items() if old is not None and old.is_meta]
    return [name for name in moved if not module.get_buffer(name).is_meta]


class KeepsPrecision(nn.Module):
    """A module whose own buffers are never rounded; those of float64 stay where they are on a device without it.

    Where they come off the meta device, they are zero, and then what `_fill_buffers` sets.
    """

    def _apply(self: M, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> M:
        before = dict(self.named_buffers(recurse=False))

        def moved(tensor: Tensor) -> Tensor:
            try:
                return fn(tensor)
            except TypeError:  # so says MPS
                if tensor.dtype != torch.float64 or all(tensor is not buffer for buffer in before.values()):
                    raise
                return tensor

        super()._apply(moved, recurse)
        for name, after in list(self.named_buffers(recurse=False)):
            if after.dtype != before[name].dtype:
                self._buffers[name] = before[name].to(after.device)
        if blank := off_meta(before, self):
            for name in blank:
                self.get_buffer(name).zero_()
            self._fill_buffers()
        return self

    def _fill_buffers(self) -> None:
        """Set those buffers that are not zero to begin with."""


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """No automatic mixed precision, on a device that has any.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), full_precision(torch.device("cpu")):
        ...     print((torch.ones(1, 1) @ torch.ones(1, 1)).dtype)
        torch.float32
    """
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def is_mixed_precision(device: torch.device) -> bool:
    """Whether automatic mixed precision is on, on a device that has any."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def runs_eagerly() -> bool:
    """Whether code runs on numbers that can be looked at: neither compiled, nor traced, nor transformed."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    return not traced and not transforms_active()
