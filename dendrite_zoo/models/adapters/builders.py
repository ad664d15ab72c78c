"""Backbones that are built when a model that was learned on them is loaded."""

from collections.abc import Callable

from torch import nn

__all__ = ["register_backbone"]

BUILDERS: dict[str, Callable[[], nn.Module]] = {}
"""By the name that artifacts give a backbone, what builds it."""


def register_backbone(name: str, build: Callable[[], nn.Module]) -> None:
    """Say how a backbone is built, so that models that were learned on it load without ``backbone=``.

    An artifact has the name of its backbone alone, never code: what is not registered is not built.

    Args:
        name: as artifacts have it, such as ``"timm/resnet18.a1_in1k"``; a revision after ``@`` may be left out.
        build: gives the network with its weights, which are compared with those that the dendrites were learned on.

    Example:
        >>> register_backbone("my/backbone", lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU()))
        >>> build_backbone("my/backbone@v1")
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU()
        )
    """
    BUILDERS[name] = build


def build_backbone(name: str) -> nn.Module | None:
    """Build the backbone of this name; None where it is not registered."""
    build = BUILDERS.get(name) or BUILDERS.get(name.partition("@")[0])
    return None if build is None else build()
