"""Putting dendrites on somebody else's network."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from dendrite_zoo._core.torch import compiled_part, is_compiled
from dendrite_zoo.hub.artifact import fingerprint
from dendrite_zoo.layers.gate import BATCH_NORMS, channels_of
from dendrite_zoo.models.adapters.context import ContextKind, random_features_for
from dendrite_zoo.models.adapters.head import HeadKind
from dendrite_zoo.models.adapters.model import AdaptedBackbone
from dendrite_zoo.models.adapters.probe import Layers, find_layers, probe

__all__ = ["add_dendrites"]


def add_dendrites(
    backbone: nn.Module,
    *,
    layers: Layers,
    num_classes: int | Sequence[int],
    max_tasks: int,
    head: HeadKind | None = "ridge",
    context: ContextKind = "ridge",
    shift: bool = False,
    name: str | None = None,
    example: Any = None,
) -> AdaptedBackbone:
    r"""Put dendrites on a pretrained network of anybody's, so that it learns task after task and loses none.

    Each task has a segment, and so a gate on each channel of the chosen layers (and with ``shift`` an offset):

    .. math:: y'_c = 2\sigma(s_{tc}) \, y_c + b_{tc}

    Gates begin at 1, and are all that is trained, with a small head; the network is frozen, in place, and stays in eval
    mode. It is FiLM (Perez et al. 2018) or IA3 (Liu et al. 2022) with a task that is inferred: by the features that the
    network has without gates. Earlier tasks' outputs, the task given, stay equal to the bit.

    Features are those of several stages: of images the last output of each resolution, of sequences that of some
    blocks and of the network itself, each averaged over positions (over the ``attention_mask``, where there is one),
    of images their standard deviation, too, and for a head ``"ridge"`` the input itself, made smaller. What a network
    returns is a tensor, a tuple whose first is one, or an output of transformers, of which ``last_hidden_state`` or
    ``logits`` are taken.

    Args:
        backbone: maps inputs to features: a tensor ``(B, ...)``, or a dictionary of keyword arguments. A layer that
            classifies is better left out, such as by ``num_classes=0`` of timm or ``network.fc = nn.Identity()``.
        layers: which layers get gates: a type such as ``nn.Conv2d``, a name or a glob such as ``"*.conv2"`` or
            ``"encoder.layer.*"``, or a list of these; see `find_layers`.
        num_classes: how many classes each task has: one number for all, or one a task, such as ``[10, 10, 242]``, so
            that the head of a task is no larger than it needs. Labels of each task are from 0. The output that all
            tasks share is as large as the largest; classes that a task does not have are far below all others.
        max_tasks: how many tasks there is room for.
        head: ``"ridge"``: a linear head is trained with the gates, then `AdaptedBackbone.fit_head` solves another one
            from random features of features and inputs, gated where that is better for each seventh row, on which gates
            are not trained; ``"linear"``: that of the training; None for features.
        context: where a task comes from, where none is given: ``"ridge"`` (a discriminant over random features, which
            knows the means of the classes of each task once a ridge head is solved), ``"prototype"`` (the nearest mean
            of features); with ``"given"`` it always is.
        shift: whether channels get an offset, too.
        name: what an artifact calls the backbone, such as ``"timm/resnet18.a1_in1k@<commit>"``; by default what timm
            or transformers call it.
        example: a batch of inputs, to see the sizes of features; by default one is made up.

    Raises:
        ValueError: ``layers`` stand for none, or name one that is never called; the network does not run on the
            example; an argument out of range.

    Example:
        >>> backbone = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> model = add_dendrites(backbone, layers=nn.Conv2d, num_classes=10, max_tasks=5, head="linear")
        >>> model.start_task(0, [torch.rand(32, 1, 28, 28)])
        >>> model(torch.rand(4, 1, 28, 28), task=0).shape, model(torch.rand(4, 1, 28, 28)).shape
        (torch.Size([4, 10]), torch.Size([4, 10]))
    """
    _check_backbone(backbone)
    backbone.eval()
    found = find_layers(backbone, layers)
    seen = probe(backbone, example)
    found = _without_idle(backbone, found, seen.called, layers)
    _warn_of_batch_statistics(backbone, seen.called)
    model = AdaptedBackbone(
        layers={name: channels_of(layer).number for name, layer in found.items()},  # type: ignore[union-attr]
        stages={name: list(stage) for name, stage in seen.stages.items()},
        num_classes=list(num_classes) if isinstance(num_classes, Sequence) else num_classes,
        max_tasks=max_tasks,
        head=head,
        context=context,
        shift=shift,
        input_features=seen.input_features if head == "ridge" else 0,
        context_features=random_features_for(seen.stages.values()) if context == "ridge" else None,
        backbone_name=_name_of(backbone) if name is None else name,
        backbone_sha256=fingerprint(backbone.state_dict()),
    )
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    return model.to(device).attach(backbone)


def _without_idle(
    backbone: nn.Module, found: Mapping[str, nn.Module], called: Sequence[str], layers: Layers
) -> dict[str, nn.Module]:
    """The layers that a network calls; others that a type or glob stands for, such as auxiliary heads, are left out.

    Raises:
        ValueError: it does not call one that is named, or none of them.
    """
    idle = [name for name in found if name not in called]
    if not idle:
        return dict(found)
    named = [layers] if isinstance(layers, (str, type)) else layers
    listed = ", ".join(idle[:5]) + (f" and {len(idle) - 5} more" if len(idle) > 5 else "")
    if len(idle) == len(found) or any(name in named for name in idle):
        raise ValueError(
            f"Expected layers that {type(backbone).__name__} calls, but got {listed}, which it does not "
            "when it runs: a gate there would have no effect. Leave them out of `layers`."
        )
    warnings.warn(
        f"{type(backbone).__name__} does not call {listed} when it runs: a gate there would have no effect, and they "
        "get none. If it calls them for other inputs, give add_dendrites(..., example=x) such ones.",
        stacklevel=3,
    )
    return {name: layer for name, layer in found.items() if name not in idle}


def _warn_of_batch_statistics(backbone: nn.Module, called: Sequence[str]) -> None:
    """Warn of batch norms that normalise by the rows of a batch, in eval mode, too."""
    norms = [name for name, m in backbone.named_modules() if type(m) in BATCH_NORMS and name in called]
    if by_batch := [name for name in norms if (m := backbone.get_submodule(name)).training or m.running_var is None]:
        warnings.warn(
            f"{by_batch[0]} of {type(backbone).__name__} normalises by the rows of a batch in eval mode, too: what is "
            "said of an input depends on those beside it, and what was learned of a task may change. Keep running "
            "statistics (track_running_stats=True), and let eval() leave train mode.",
            stacklevel=3,
        )


def _check_backbone(backbone: Any) -> None:
    """Refuse what is no module, is compiled already, or has layers of no size yet."""
    if not isinstance(backbone, nn.Module):
        raise TypeError(f"Expected `backbone` to be a torch.nn.Module, but got {type(backbone).__name__}.")
    if lazy := [name for name, tensor in backbone.state_dict(keep_vars=True).items() if is_lazy(tensor)]:
        raise ValueError(
            f"Expected a network whose layers have their sizes, but got a lazy one in {lazy[0]!r}. Give it a batch of "
            "its inputs first, backbone(x), or its trained weights."
        )
    part = compiled_part(backbone)
    if part or is_compiled(backbone):
        got = f"one whose {part!r} is" if part else "one"
        remedy = "Give it as it was before torch.compile, and compile what add_dendrites returns."
        raise ValueError(f"Expected a network that is not compiled, for gates are put into it, but got {got}. {remedy}")


def _name_of(backbone: nn.Module) -> str:
    """What timm or transformers call a network, where it is of one of them."""
    said = getattr(backbone, "pretrained_cfg", None)
    if isinstance(said, Mapping) and said.get("hf_hub_id"):
        return str(said["hf_hub_id"])
    return str(getattr(getattr(backbone, "config", None), "name_or_path", "") or "")
