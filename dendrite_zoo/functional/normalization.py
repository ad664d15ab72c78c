"""Layer norm over the units that are active."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["active_layer_norm"]


def active_layer_norm(x: Tensor, active: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    r"""Give the active units of each row zero mean and unit variance; the others are zero.

    :math:`y = (x - \mu) / \sqrt{\sigma^2 + \epsilon}`, with mean and variance over the active units: the layer norm
    (Ba et al. 2016, arXiv:1607.06450) of a subnetwork, without a learned scale.

    Args:
        x: the drive of each unit.
        active: which units are active, as bools or 0 and 1; None for all.
        eps: added to the variance.

    Shape:
        x ``(..., U)``, active broadcast against it; result ``(..., U)``.

    Example:
        >>> active_layer_norm(torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([True, True, False]))
        tensor([[-1.0000,  1.0000,  0.0000]])
    """
    if active is None:
        return F.layer_norm(x, x.shape[-1:], eps=eps)
    active = active.to(x.dtype)
    count = active.sum(-1, keepdim=True)
    centred = (x - (x * active).sum(-1, keepdim=True) / count) * active
    return centred * torch.rsqrt(centred.square().sum(-1, keepdim=True) / count + eps)
