"""What LightningModules share that can train the parts of a network that a new task has for itself alone."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from dendrite_zoo._core.checks import check_choice, wrong_argument
from dendrite_zoo._core.lightning import attached_trainer, refuse_swa, transfer_batch, warn_of_average
from dendrite_zoo._core.progress import progress_bar
from dendrite_zoo._core.ranks import sum_over_ranks
from dendrite_zoo.lightning_modules.base import TaskModule
from dendrite_zoo.lightning_modules.new_parts import NewParts, thaw
from dendrite_zoo.lightning_modules.starts import words_of_tasks_without_parts
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.row_sparse.parameter import RowParameter

Learn: TypeAlias = Literal["all", "new"]

HELD_OUT = 4  # batches by which the task to start from is chosen
COLUMNS_LR, SUBNETWORK_LR = 1e-2, 4e-3  # 1/step: a task's few numbers have to learn all that is new in it
TRAINED: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""The networks that were trained in this process, or that a checkpoint was loaded into."""


class Thaw(Callback):
    """Lets all of a network learn again where a fit ends with an exception, of which modules do not hear.

    A task of which no batch was trained on is not counted as learned.
    """

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let it learn."""
        if isinstance(pl_module, NewTaskModule):  # a Trainer keeps its callbacks for other modules
            thaw(pl_module.model)
            pl_module.undo_start()


class NewTaskModule(TaskModule):
    """A `TaskModule` that with ``learn="new"`` trains only what no earlier task uses (`NewParts`).

    The first task of a network that knows none trains all of it. In a fit of several tasks, each has its parts in turn;
    when it ends they are fixed, as they then are.

    Attributes:
        new: the parts that are trained; None with ``learn="all"``.
        knew_tasks: whether the network had learned a task before the latest fit.
        started_from: by task, the task that ``init_from`` started it from, None for zeros (of a subnetwork, for weights
            as they were); both as they are numbered in the network.
    """

    model: nn.Module
    default_lr: float  # 1/step, of a module without ``lr`` where all of its network is trained

    def __init__(self) -> None:
        super().__init__()
        self.new: NewParts | None = None
        self.knew_tasks, self._made = False, 0  # the optimizer that is ours, by its id
        self.started_from: dict[int, int | None] = {}
        self._resumed_parts: dict[str, Any] | None = None  # of the checkpoint that a fit resumes from

    # What a subclass says.

    def first_tasks(self) -> Sequence[int]:
        """The tasks about to be trained, as they are numbered in the network."""
        raise NotImplementedError

    def earlier_tasks(self) -> Iterable[int]:
        """The tasks that are not to change while those are trained."""
        raise NotImplementedError

    def knows_tasks(self) -> bool:
        """Whether the network has learned a task before, asked as a fit begins."""
        raise NotImplementedError

    def loss_of(self, batch: Any) -> Tensor:
        """The loss of a batch of the task about to be trained, of the network as it is."""
        raise NotImplementedError

    def held_out(self, task: int) -> Iterable[Any]:
        """Batches of one of those tasks, to choose by what it starts from."""
        raise NotImplementedError

    def misfit_of(self, task: int) -> Callable[[], Tensor | float]:
        """How badly the network does in one of those tasks, as it is at each call: its loss of the first batches."""
        batches = [transfer_batch(self.trainer, batch) for batch in islice(self.held_out(task), HELD_OUT)]
        return lambda: sum(self.loss_of(batch) for batch in batches)

    def on_start(self, start: int | None, task: int) -> None:
        """A task has started as another, or from zeros where None: what a subclass has beside the network follows."""

    def place_of(self, name: str | int) -> int:
        """The number of a task in the network by its name."""
        raise NotImplementedError

    def new_classes(self) -> Tensor | None:
        """Whose the classes are, as `NewParts` takes them; None for a network without an output of classes."""
        return None

    def choose_learning(self, learn: Learn, init_from: str | int | None, **parts: Any) -> None:
        """Take the arguments ``learn`` and ``init_from`` of a subclass, which has its ``model`` by now.

        Args:
            learn: ``"all"``, or ``"new"``.
            init_from: what a new task's columns of segments, or its subnetwork, start as copies of: another task, or
                ``"nearest"``.
            **parts: further arguments of `NewParts`.
        """
        check_choice(get_args(Learn), learn=learn)
        if learn == "new":
            self.new = NewParts(self.model, **parts)
        if init_from is not None and (self.new is None or not self.new.is_one_hot):
            where = "with learn='new'" if self.new is None else "with one-hot contexts: others share units"
            raise wrong_argument("init_from", f"None but {where}", init_from, "Leave it out.")
        if init_from not in (None, "nearest"):
            self.place_of(init_from)
        self.save_hyperparameters({"learn": learn, "init_from": init_from})

    def configure_callbacks(self) -> list[Callback]:
        """A callback that leaves the network as it should be after an exception."""
        trainer = attached_trainer(self)
        known = [] if trainer is None else trainer.callbacks  # type: ignore[attr-defined]
        there = any(isinstance(callback, Thaw) for callback in known)  # of an earlier validate or fit
        return [] if there else [Thaw()]

    @property
    def network(self) -> nn.Module:
        """What to call in place of ``model``: in a training step, gradients reach what is trained."""
        if self.new is None or not self.training or not torch.is_grad_enabled():
            return self.model
        return self.new

    @property
    def learning_rate(self) -> float:
        """What the optimizer begins with, 1/step: ``lr``, or where it is None the default for what is trained now."""
        if (given := self.hparams["lr"]) is not None:
            return float(given)
        if self.new is None or self.new.is_whole:
            return self.default_lr
        return COLUMNS_LR if self.new.has_columns else SUBNETWORK_LR

    @property
    def may_change_all(self) -> bool:
        """Whether what earlier tasks use may change, such as the normaliser of a policy."""
        return self.new is None or self.new.is_whole

    def trained_parameters(self) -> list[nn.Parameter]:
        """Those of an optimizer: with ``learn="new"`` the parts of the new task alone."""
        if self.new is None or not self.new.is_whole:
            return list((self if self.new is None else self.new).parameters())
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("new.")]

    def configure_optimizers(self) -> Optimizer:
        """Return the one optimizer, newly made."""
        optimizer = DendriteAdam(self.trained_parameters(), lr=self.learning_rate)
        self._made = id(optimizer)
        return optimizer

    def setup(self, stage: str) -> None:
        """Own what is new, before an optimizer is made, and before processes agree on what is trained."""
        super().setup(stage)
        if stage != "fit":
            return
        thaw(self.model)  # which an earlier fit may not have come to
        self._resumed_parts, self.knew_tasks = None, self.knows_tasks() or self.model in TRAINED
        if (new := self.new) is None:
            return
        refuse_swa(attached_trainer(self))
        if self.knew_tasks:
            self._own()
        else:
            rank_zero_info("learn='new': the network knows no task yet, and all of it learns the first.")
            new.own_all()

    def on_fit_start(self) -> None:
        """Take the parts of a resumed run from the weights of its checkpoint."""
        if self.new is not None and self._resumed_parts is not None:
            self.new.restore(self._resumed_parts)

    def on_train_start(self) -> None:
        """Have the network follow each step of the optimizer, whoever made it."""
        if self.new is not None:
            self.new.fix_statistics()
            for optimizer in self.trainer.optimizers:
                optimizer.register_step_post_hook(self.new.merge)

    def enter_task(self, task: int | None) -> int | None:
        """Take note of the task of a batch; own what is new of another one."""
        known = self.boundary.task
        started = super().enter_task(task)
        if started is not None and self.new is not None:
            self.start_parts(is_first=known is None)
        return started

    def start_parts(self, *, is_first: bool) -> None:
        """Begin with the parts of the tasks about to be trained."""
        new = self.new
        if new is None or (new.is_whole and is_first):
            return
        was_whole = new.is_whole
        warn_of_average(self.trainer)
        self._own()
        if words := words_of_tasks_without_parts(self):
            rank_zero_warn(words)
        new.fix_statistics()
        for optimizer in self.trainer.optimizers:
            for parameter in new.parameters():  # the moments are those of other numbers
                optimizer.state.pop(parameter, None)
        if was_whole:  # the first task had all of the network
            self._replace_parameters()
        if (init_from := self.hparams["init_from"]) is not None:
            for task in new.tasks:
                start = self._nearest(new, task) if init_from == "nearest" else self.place_of(init_from)
                if start != task:
                    new.start_from(start, task)
                    self.started_from[task] = start
                    self.on_start(start, task)
                    self._say_start(start, task)

    def _say_start(self, start: int | None, task: int) -> None:
        how = "as none of the known tasks" if start is None else f"as a copy of {self._name_of(start)}"
        rank_zero_info(f"init_from: {self._name_of(task)} starts {how}.")

    def _name_of(self, task: int) -> str:
        return dict(enumerate(getattr(self.model, "tasks", ()))).get(task, f"task {task}")  # names of a policy

    def on_fit_end(self) -> None:
        """Let all of the network learn again, in whatever comes next."""
        super().on_fit_end()
        TRAINED.add(self.model)
        thaw(self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save whose parts are trained; their values are those of the network."""
        super().on_save_checkpoint(checkpoint)
        if self.new is not None:
            checkpoint["new_parts"] = {**self.new.state(), "started_from": dict(self.started_from)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Own what the run had owned that is resumed.

        Raises:
            ValueError: a fit is to resume from a checkpoint of another ``learn``.
        """
        super().on_load_checkpoint(checkpoint)
        TRAINED.add(self.model)
        saved: dict[str, Any] | None = checkpoint.get("new_parts")
        if self.new is not None and saved is not None:
            self.started_from = dict(saved["started_from"])
        if not getattr(attached_trainer(self), "training", False):
            return
        if (saved is None) != (self.new is None):
            own, other = ("new", "all") if saved is None else ("all", "new")
            raise ValueError(
                f"Expected a checkpoint of learn={own!r} to resume from, but got one of learn={other!r}. Resume with "
                f"learn={other!r}, or begin a fit of the module that load_from_checkpoint(path, learn={own!r}) gives."
            )
        if self.new is not None and saved is not None:
            self._resumed_parts = saved
            self.new.restore(saved)  # as many numbers, before the optimizer is made; on_fit_start takes their values

    def _own(self) -> None:
        assert self.new is not None
        self.new.own(self.first_tasks(), self.earlier_tasks(), self.new_classes())

    @torch.no_grad()
    def _nearest(self, new: NewParts, task: int) -> int | None:
        """The earlier task that fits a new one best; None for none."""
        candidates, misfit = [None, *self.earlier_tasks()], self.misfit_of(task)
        misfits = torch.zeros(len(candidates), device=self.device)
        about, trainer = f"init_from: what {self._name_of(task)} starts as", self.trainer
        with progress_bar(trainer.is_global_zero and trainer.progress_bar_callback is not None) as bar:
            for number, candidate in enumerate(bar.track(candidates, description=about)):
                new.start_from(candidate, task)
                misfits[number] = misfit()
        sum_over_ranks(misfits)
        return candidates[int(misfits.argmin())]

    def _replace_parameters(self) -> None:
        """Have the optimizer train the parts alone."""
        if self.trainer.world_size > 1:
            raise ValueError(
                "Expected a network that knows a task, for learn='new' in several processes, but got one that learned "
                "its first in this fit. Train the first task in a fit of its own."
            )
        for optimizer in self.trainer.optimizers:
            group = optimizer.param_groups[0]
            for parameter in group["params"]:
                optimizer.state.pop(parameter, None)
                if isinstance(parameter, RowParameter):
                    parameter.owner = None
            group["params"] = list(cast(NewParts, self.new).parameters())
            if id(optimizer) == self._made:
                group["lr"] = group["initial_lr"] = self.learning_rate
