"""Task ids found by a linear discriminant over random features: right where tasks look alike."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from dendrite_zoo._core.batches import input_batches
from dendrite_zoo._core.checks import check_integers, wrong_argument
from dendrite_zoo._core.finite import LARGEST
from dendrite_zoo._core.ranks import all_gather, sum_over_ranks
from dendrite_zoo._core.torch import full_precision
from dendrite_zoo.contexts.base import flat_rows, usable_rows
from dendrite_zoo.contexts.one_hot import OneHotContext
from dendrite_zoo.layers import RandomFeatures, RidgeHead
from dendrite_zoo.layers.random_features import without_outliers

__all__ = ["RidgeContext"]

DIRECTIONS = 128  # in which it is measured how far a row lies from its task
FOLDS, ROWS = 3, 2048  # into which the first rows are split that whiten features; of which so many are looked at
LEVELS = 201  # of the distances of training rows, from the least to the largest


class RidgeContext(OneHotContext):
    r"""The task id as context, found by a linear discriminant (`RidgeHead`) over random ReLU features of an input.

    Running sums over the rows of each task are kept and no rows; when a task starts, it is summed in one pass and the
    discriminant solved anew. What is known of earlier tasks stays exact, whatever their order. A `PrototypeContext`
    tells tasks apart by their means alone, this one by what differs at all: where images are rotated or blurred, or
    come from other data sets, it finds the tasks of many more. Each id chooses its own segments, as in a
    `OneHotContext`, so that tasks that look alike have contexts that do not.

    A task of several classes has as many means, which tell more tasks apart than one: give ``num_classes``, and the
    labels of a started task to `class_sums` and `split_task`.

    Before any task is learned, each row is of task 0. A task that is started again adds its rows to those before.

    Args:
        num_features: size of an input row.
        max_tasks: capacity, in tasks; also the size of the context.
        random_features: random features, ``F``. More tell more alike tasks apart; memory grows as ``4 * F ** 2`` bytes
            (twice that in float64 while it is solved), and the time of a solution as ``F ** 3``.
        penalty: of the discriminant; see `dendrite_zoo.functional.ridge_discriminant`.
        seed: of the random features.
        whiten: for inputs that are features of a network; see `dendrite_zoo.layers.RandomFeatures`.
        num_classes: of each task, where they are known.

    Attributes:
        features: the `RandomFeatures`.
        head: the `RidgeHead` whose classes are those of task 0, of task 1, ...; all rows of a task are of its first one
            until it is split.

    Example:
        >>> x = torch.randn(2, 300, 8)
        >>> context = RidgeContext(num_features=8, max_tasks=3)
        >>> context.start_task(0, [x[0]])
        >>> context.start_task(1, [3 * x[1]])     # the mean of both is 0
        >>> context.infer(torch.tensor([[0.5] * 8, [5.0] * 8])), context.num_tasks
        (tensor([0, 1]), 2)
        >>> context.confidence(torch.tensor([[0.5] * 8, [100.0] * 8])) < 0.01     # the second is of neither
        tensor([False,  True])
    """

    inferable = True

    def __init__(
        self,
        num_features: int,
        max_tasks: int,
        *,
        random_features: int = 2048,
        penalty: float = 0.1,
        seed: int = 0,
        whiten: bool = False,
        num_classes: int = 1,
    ) -> None:
        super().__init__(max_tasks)
        check_integers(1, num_classes=num_classes)
        self.num_features, self.num_classes = num_features, num_classes
        self.features = RandomFeatures(num_features, random_features, seed=seed, whiten=whiten)
        self.head = RidgeHead(random_features, max_tasks * num_classes, penalty=penalty)
        size = min(DIRECTIONS, num_features, random_features)
        self.centers = nn.Buffer(torch.zeros(max_tasks, size, dtype=torch.float32))
        self.whitening = nn.Buffer(torch.zeros(max_tasks, size, size, dtype=torch.float32))
        self.distances = nn.Buffer(torch.zeros(max_tasks, LEVELS, dtype=torch.float32))

    @torch.no_grad()
    def start_task(self, task: int, batches: Iterable[Tensor]) -> None:
        """Add the task's inputs to the sums, and solve; see `TaskContext.start_task`."""
        self.task_ids(task)
        whitens = self.features.whiten and not self.features.is_set
        seen, first = list[Tensor](), list[Tensor]()

        def rows() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in input_batches(batches):
                x = flat_rows(batch, self.num_features)
                x = x.where(x.abs() < LARGEST, torch.nan)  # which the sums refuse
                yield x, torch.full((len(x),), task * self.num_classes, device=x.device)

        def features() -> Iterator[tuple[Tensor, Tensor]]:
            for x, label in self.features.start(rows(), LARGEST):
                seen.append(self._directions(x))
                if whitens and sum(map(len, first)) < ROWS:
                    first.append(x.cpu())
                yield self.features(x), label

        with self.features.set_by_accepted_rows():
            self.head.learn(features())
        self.counts.copy_(self.head.counts.view(self.max_tasks, -1).sum(1))
        far = self._left_out(torch.cat(first)) if sum(map(len, first)) > FOLDS else None
        self._set_distances(task, torch.cat(seen) if seen else self.centers[:0], far)

    @torch.no_grad()
    def class_sums(self, x: Tensor, y: Tensor) -> Tensor:
        """What `split_task` needs of rows ``(B, features)`` of a started task: sums by class, and numbers of rows.

        Args:
            x: rows.
            y: their classes ``(B,)``, from 0; of more than ``num_classes`` every ``num_classes``-th shares a mean.

        Returns:
            ``(num_classes, random_features + 1)``, to be added up over all batches.
        """
        h = nn.functional.pad(self.features(flat_rows(x, self.num_features)), (0, 1), value=1.0).to(self.head.sums)
        return h.new_zeros(self.num_classes, h.shape[1]).index_add_(0, y.to(h.device) % self.num_classes, h)

    @torch.no_grad()
    def split_task(self, task: int, sums: Tensor) -> None:
        """Have a started task be known by the means of its classes, in place of one, and solve.

        Args:
            task: it has as many rows as before.
            sums: of `class_sums`, over all its rows that this process has.

        Example:
            >>> y = torch.arange(200) % 2
            >>> x = torch.randn(200, 1) + 8 * y[:, None]      # around 0 and 8: their mean is that of what lies between
            >>> context = RidgeContext(1, max_tasks=2, random_features=64, num_classes=2)
            >>> context.start_task(0, [x])
            >>> context.start_task(1, [torch.randn(200, 1) + 4])
            >>> context.split_task(0, context.class_sums(x, y))
            >>> context.infer(torch.tensor([[0.0], [4.0], [8.0]]))
            tensor([0, 1, 0])
        """
        sum_over_ranks(sums)
        own = slice(task * self.num_classes, (task + 1) * self.num_classes)
        rows = sums * (self.head.counts[own].sum() / sums[:, -1].sum())
        self.head.sums[own], self.head.counts[own] = rows[:, :-1], rows[:, -1]
        self.head.solve()

    @torch.no_grad()
    def infer(self, x: Tensor) -> Tensor:
        """The most probable task of each row of ``x`` ``(B, features)``, as ``(B,)`` integers."""
        return self.head(self.features(usable_rows(x, self.num_features))).argmax(1) // self.num_classes

    @torch.no_grad()
    def confidence(self, x: Tensor, task: int | Tensor | None = None) -> Tensor:
        """Whether rows are of their task at all: the share of its training rows that were as far from its mean.

        It is small for a row that is of none of the tasks known: below 0.01 for a hundredth of the rows of the task (of
        a task of fewer than a hundred rows, for one in as many), and, where they have another structure, for most of
        others. What looks like a part of a task, as digits among clothes do, is not recognised. Distance is that of
        Mahalanobis in random directions; it was measured on each training row as if that had been left out, when the
        task was last started.

        Args:
            x: ``(B, features)``.
            task: one, or one for each row; inferred where None.

        Returns:
            ``(B,)``, between 0 and 1.

        Raises:
            ValueError: a row has NaN, infinity or numbers too large; or there is another number of tasks.
        """
        x = usable_rows(x, self.num_features)
        ids = self.infer(x) if task is None else self.task_ids(task).to(x.device)
        if ids.ndim and len(ids) != len(x):
            raise wrong_argument("task", f"one task, or one for each of {len(x)} rows", tuple(ids.shape))
        ids = ids.expand(len(x))
        found = x.new_zeros(len(x))
        for one in ids.unique().tolist():
            rows = ids == one
            with full_precision(x.device):
                far = (self._directions(x[rows]) - self.centers[one]) @ self.whitening[one].T
            below = torch.searchsorted(self.distances[one].contiguous(), far.square().sum(1))
            found[rows] = 1 - below.to(found) / LEVELS
        return found.where(self.counts[ids] > 0, 0.0)

    def _directions(self, x: Tensor, features: RandomFeatures | None = None) -> Tensor:
        """Standardised rows along random directions, ``(B, directions)``."""
        features = self.features if features is None else features
        with full_precision(x.device):
            return features.standardise(x) @ self.features.random_weight(x.device)[:, : self.centers.shape[1]]

    def _left_out(self, x: Tensor) -> Tensor:
        """How far the rows by which features are whitened lie from others, by which alone they are then."""
        x = without_outliers(x)
        found, fold = list[Tensor](), torch.arange(len(x)) % FOLDS
        for number in range(FOLDS):
            features = RandomFeatures(self.num_features, self.head.in_features, whiten=True)
            features.set_by(x[fold != number])
            u, others = (self._directions(x[rows], features).double() for rows in (fold == number, fold != number))
            mean = others.mean(0)
            factor = _factor((others - mean).T @ (others - mean) / len(others))
            found.append(torch.linalg.solve_triangular(factor, (u - mean).T, upper=False).square().sum(0))
        return torch.cat(found)

    def _set_distances(self, task: int, u: Tensor, far: Tensor | None) -> None:
        """Measure how far the rows of a task lie from its mean, each as if it were left out; or as is known."""
        u = u.double() if u.device.type != "mps" else u.cpu().double()
        total, square, rows = u.sum(0), u.T @ u, u.new_tensor(len(u))
        sum_over_ranks(total, square, rows)
        mean = total / rows
        factor = _factor(square / rows - torch.outer(mean, mean))
        if far is None:
            far = torch.linalg.solve_triangular(factor, (u - mean).T, upper=False).square().sum(0)
            others = (rows - 1).clamp(min=1)  # by Sherman and Morrison's formula, of mean and covariance both
            far = far * rows / others / (1 - far / others).clamp(min=1e-9)
        far = torch.cat([part.to(far) for part in all_gather(far.cpu())]).sort().values
        levels = torch.linspace(0, len(far) - 1, LEVELS, device=far.device).round().long()
        self.centers[task] = mean.to(self.centers)
        eye = torch.eye(len(mean), dtype=factor.dtype, device=factor.device)
        self.whitening[task] = torch.linalg.solve_triangular(factor, eye, upper=False).to(self.whitening)
        self.distances[task] = far[levels].to(self.distances)


def _factor(covariance: Tensor) -> Tensor:
    """The Cholesky factor of a covariance, made a little larger in place."""
    covariance.diagonal().add_(covariance.diagonal().mean().clamp(min=1e-12) * 1e-3)
    factor: Tensor = torch.linalg.cholesky(covariance)
    return factor
