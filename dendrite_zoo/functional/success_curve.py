"""How much faster a task is learned after others than alone, by the success while it is learned."""

from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.checks import wrong_argument

__all__ = ["curve_transfer"]


def curve_transfer(success: Any, alone: Any) -> Tensor:
    r"""Forward transfer as Continual World measures it: by the areas under two curves of success.

    .. math:: FT = \frac{A - A_{alone}}{1 - A_{alone}}

    where :math:`A` is the mean success over a task's training, :math:`\frac{1}{\Delta} \int p(t)\, dt`, and
    :math:`A_{alone}` that of the same task, for as long, learned first and by itself. 1 is the most, where the task
    succeeds from its first step; a negative value says that earlier tasks were in the way.

    Args:
        success: shares of goals reached, measured at equal distances while the task was learned, such as
            ``SuccessLogger.curves[task]``.
        alone: the same of a run of that task alone; it may have been measured more or less often.

    Shape:
        ``(P,)`` and ``(Q,)`` to ``()``; NaN where the run alone had nothing to gain.

    Raises:
        ValueError: a curve is empty or no list of shares from 0 to 1.

    Source:
        Wołczyk et al. 2021, Continual World, section 4.3, https://arxiv.org/abs/2105.10919.

    Example:
        >>> curve_transfer([0.5, 0.9], [0.0, 0.3, 0.6, 0.7])
        tensor(0.5000)
    """
    area, area_alone = _area("success", success), _area("alone", alone)
    return torch.where(area_alone < 1, (area - area_alone) / (1 - area_alone), torch.nan).float()


def _area(name: str, curve: Any) -> Tensor:
    values = torch.as_tensor(curve, dtype=torch.float64)
    if values.ndim != 1 or len(values) == 0 or not bool(((values >= 0) & (values <= 1)).all()):
        raise wrong_argument(name, "one or more shares from 0 to 1, in the order in which they were measured", curve)
    return values.mean()
