"""Some numbers of a parameter, as a parameter of their own."""

from typing import Any

import torch
from torch import Tensor, nn

from dendrite_zoo.models.control import ControlModel


class NewPart(nn.Module):
    """Some numbers of a parameter, as a parameter of their own; no state dict contains it.

    Args:
        name: of the parameter.
        size: how many numbers.
        like: a tensor of its type and device.

    Attributes:
        value: the numbers, ``(size,)``.
        ids: their places in the parameter, flattened.
        free: which of them no earlier task uses; the others are those of the parameter.
    """

    ids: Tensor
    free: Tensor

    def __init__(self, name: str, size: int, like: Tensor) -> None:
        super().__init__()
        self.name = name
        self.value = nn.Parameter(like.new_zeros(size))
        self.register_buffer("ids", torch.zeros(size, dtype=torch.long, device=like.device), persistent=False)
        self.register_buffer("free", torch.zeros(size, dtype=torch.bool, device=like.device), persistent=False)

    def of(self, parameter: Tensor) -> Tensor:
        """The numbers of a parameter, with the values of those that are free."""
        return torch.where(self.free, self.value, parameter.detach().view(-1).index_select(0, self.ids))

    def _save_to_state_dict(self, *args: Any) -> None: ...

    def _load_from_state_dict(self, *args: Any) -> None: ...


def numbers_trained(policy: nn.Module, task: int) -> int:
    """How many numbers of a policy a task trains where all may learn: of subnetworks those of its own."""
    sizes = {parameter: parameter.numel() for parameter in policy.parameters() if parameter.requires_grad}
    for network in policy.networks if isinstance(policy, ControlModel) else ():
        if network.config["winners"] == "context":
            for name, index in network.active_parameters(task).items():
                parameter = network.get_parameter(name)
                sizes[parameter] = parameter[index].numel()
    return sum(sizes.values())
