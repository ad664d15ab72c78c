"""The Fisher information of a task: how sharply does the likelihood of each sample depend on each weight?"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from dendrite_zoo._core.ranks import sum_over_ranks
from dendrite_zoo.regularizers.quadratic import _zeros, covered_by
from dendrite_zoo.row_sparse.parameter import once

__all__ = ["LogLikelihood", "fisher_diagonal"]

Parameters: TypeAlias = Mapping[str, Tensor]
LogLikelihood: TypeAlias = Callable[[Parameters, Any], Tensor]
"""From parameters by name, and a batch, to the log-likelihood of each sample, ``(B,)``."""

CHUNK = 1 << 24
"""Numbers of single samples' gradients that exist at once."""


def fisher_diagonal(
    parameters: Parameters,
    log_likelihood: LogLikelihood,
    batches: Iterable[Any],
    *,
    exact: bool = True,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""The diagonal of the empirical Fisher information, :math:`F = \frac1N \sum_n (\partial_\theta \log p_n)^2`.

    The gradient of each sample is taken by itself, by `torch.func.vmap` of `torch.func.grad`, in chunks; that of one
    sample is compared with autograd's. A function that they cannot transform, such as one that branches on values, gets
    one sample after another, with a warning.

    With ``exact=False`` there is one backward pass a batch: with a random sign on every sample, the square of the
    batch's gradient is, on average over signs, the sum of the samples' squares (without them the samples would cancel,
    as they do at a minimum). Of batches of 256 the error is about a third of the value.

    Args:
        parameters: name -> parameter; one that does not learn is of no importance.
        log_likelihood: from parameters and a batch to the log-likelihood of each sample; for that of a module see
            `torch.func.functional_call`.
        batches: tensors, or nests of them, with samples along the first dimension.
        exact: take the gradient of each sample by itself.
        generator: of the signs, on the CPU.

    Shape:
        log-likelihoods ``(B,)``; the result as the parameters. Summed over processes where there are several.

    Raises:
        ValueError: there are no samples, or something else than one number a sample.

    Example:
        >>> samples = torch.tensor([1.0, 0.25])    # exponential: log p = log rate - rate * x
        >>> rate = {"rate": torch.tensor([2.0], requires_grad=True)}
        >>> fisher_diagonal(rate, lambda p, x: p["rate"].log() - p["rate"] * x, [samples])
        {'rate': tensor([0.1562])}
    """
    fisher = {name: _zeros(p) for name, p in parameters.items()}
    learning = {name: p for name, p in parameters.items() if p.requires_grad}

    def of(changed: Parameters, batch: Any) -> Tensor:
        return log_likelihood({**parameters, **changed}, batch)

    rows, way = 0, "vmap" if exact else "estimate"
    for batch in batches:
        count = _count(batch) or 0
        if not count and way != "estimate":
            way = "estimate"
            _warn("is estimated from whole batches: their tensors differ in length, so that no sample can be taken out")
        if way == "estimate":
            count = _add_estimate(fisher, learning, of, batch, generator)
        elif way == "loop":
            _add_one_by_one(fisher, learning, of, batch, count)
        else:
            try:
                _add_by_vmap(fisher, learning, of, batch, count, check=rows == 0)
            except RuntimeError as error:
                _add_one_by_one(fisher, learning, of, batch, count)
                way, reason = "loop", str(error).strip().split("\n")[0][:160]
                _warn(f"is computed from one sample after another, which takes longer: torch.func cannot ({reason})")
        rows += count
    total = torch.tensor(rows, device=next(iter(fisher.values())).device)
    sum_over_ranks(total, *fisher.values())
    if total == 0:
        raise ValueError("Expected at least one sample of the task, but got none. Check the task's data loader.")
    return {name: tensor.div_(total) for name, tensor in fisher.items()}


def _warn(how: str) -> None:
    remedy = "Choose the estimate with fisher='estimate', or fewer samples with max_batches=."
    warnings.warn(f"The Fisher information {how}. {remedy}", stacklevel=3)


def _add_estimate(
    fisher: dict[str, Tensor],
    learning: Parameters,
    log_likelihood: LogLikelihood,
    batch: Any,
    generator: torch.Generator | None,
) -> int:
    values = log_likelihood(learning, batch)
    _check_shape(values, values.numel())
    signs = torch.randint(2, values.shape, generator=generator).mul_(2).sub_(1).to(values)
    _add_square(fisher, learning, (signs * values).sum())
    return len(values)


def _add_one_by_one(
    fisher: dict[str, Tensor], learning: Parameters, log_likelihood: LogLikelihood, batch: Any, count: int
) -> None:
    for number in range(count):
        _add_square(fisher, learning, _of_sample(log_likelihood, learning, batch, torch.tensor(number)))


def _add_square(fisher: dict[str, Tensor], learning: Parameters, value: Tensor) -> None:
    gradients = torch.autograd.grad(value, list(learning.values()), allow_unused=True)
    for name, gradient in zip(learning, gradients, strict=True):
        if gradient is not None:
            covered = covered_by(once(gradient))
            covered.put(fisher[name], covered.of(fisher[name]).addcmul_(covered.gradient, covered.gradient))


def _add_by_vmap(
    fisher: dict[str, Tensor], learning: Parameters, log_likelihood: LogLikelihood, batch: Any, count: int, check: bool
) -> None:
    values = {name: p.detach() for name, p in learning.items()}
    gradient = torch.func.grad(lambda parameters, number: _of_sample(log_likelihood, parameters, batch, number))
    together = max(1, CHUNK // max(1, sum(p.numel() for p in values.values())))
    squares = {name: torch.zeros_like(fisher[name]) for name in values}  # of the batch, should one of its chunks fail
    for numbers in torch.arange(count).split(together):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # where vmap itself loops
            gradients = torch.func.vmap(gradient, in_dims=(None, 0))(values, numbers)
        if check:
            check = False
            _compare(gradients, learning, _of_sample(log_likelihood, learning, batch, numbers[-1]))
        for name, each in gradients.items():
            squares[name] += each.to(squares[name].dtype).square().sum(0)  # not in place: two may share memory
    for name, square in squares.items():
        fisher[name] += square


def _compare(gradients: Parameters, learning: Parameters, value: Tensor) -> None:
    """Raise a RuntimeError where autograd's own gradient is another than the last sample's."""
    expected = torch.autograd.grad(value, list(learning.values()), allow_unused=True)
    for each, own in zip(gradients.values(), expected, strict=True):
        own = torch.zeros_like(each[-1]) if own is None else own.to_dense()
        if not (own.isfinite().all() or each[-1].isfinite().all()):
            continue  # the same for both, and no fault of torch.func
        tolerance = 4 * torch.finfo(own.dtype).eps ** 0.5
        if not torch.allclose(each[-1], own, rtol=tolerance, atol=tolerance * float(own.abs().max())):
            raise RuntimeError("its gradients are not those of autograd")


def _of_sample(log_likelihood: LogLikelihood, parameters: Parameters, batch: Any, number: Tensor) -> Tensor:
    values = log_likelihood(parameters, _nest(batch, lambda rows: rows[number.to(rows.device).unsqueeze(0)]))
    _check_shape(values, 1)
    return values[0]


def _check_shape(values: Tensor, count: int) -> None:
    if values.shape != (count,):
        raise ValueError(
            f"Expected a log-likelihood of shape ({'B' if count > 1 else count},), one number a sample, but got "
            f"{tuple(values.shape)}. Use reduction='none'."
        )


def _count(batch: Any) -> int | None:
    """How many samples a batch has: the length of all its tensors; None where they differ."""
    lengths: set[int] = set()
    _nest(batch, lambda rows: lengths.add(len(rows)))
    return lengths.pop() if len(lengths) == 1 else None


def _nest(batch: Any, function: Callable[[Tensor], Any]) -> Any:
    """Apply a function to the tensors of a batch that have rows."""
    if isinstance(batch, Tensor):
        return function(batch) if batch.ndim else batch
    if isinstance(batch, Mapping):
        return {key: _nest(item, function) for key, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_nest(item, function) for item in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_nest(item, function) for item in batch)
    return batch
