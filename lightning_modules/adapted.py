"""What training dendrites on somebody's backbone takes beside the training of any network."""

import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any, get_args

import torch
from torch import Tensor, nn

from dendrite_zoo._core.checks import check_choice, wrong_argument
from dendrite_zoo.lightning_modules.classifier import TaskClassifier
from dendrite_zoo.lightning_modules.new_tasks import Learn
from dendrite_zoo.models import AdaptedBackbone

HELD_OUT = 16
"""Training batches by which the task to start from is chosen: every other one is held out."""


class AdaptedTasks(TaskClassifier):
    """A `TaskClassifier` that trains dendrites on a backbone (`dendrite_zoo.add_dendrites`), too.

    The column of the current task is all that is trained. A ridge head is solved for it before each validation of a
    fit, and when an epoch ends, in one pass over the task's training data.
    """

    _solved_at: tuple[int, int] | None = None

    @property
    def adapted(self) -> AdaptedBackbone | None:
        """The model, where it is a backbone with dendrites."""
        return self.model if isinstance(self.model, AdaptedBackbone) else None

    def task_batches(self) -> Iterator[tuple[Any, Tensor]]:
        """The training batches of the current task, as a step gets them."""
        raise NotImplementedError

    def choose_learning(self, learn: Learn, init_from: str | int | None, **parts: Any) -> None:
        """As for any network; dendrites on a frozen backbone train nothing but what is new in any case."""
        if (model := self.adapted) is None:
            super().choose_learning(learn, init_from, **parts)
            return
        check_choice(get_args(Learn), learn=learn)
        self._check_head(model)
        if learn == "new" and model.extractor is not None and any(p.requires_grad for p in model.backbone.parameters()):
            remedy = "Call model.backbone.requires_grad_(False)."
            raise wrong_argument("learn", "'all' with a backbone that is trained", learn, remedy)
        if init_from not in (None, "nearest"):
            self.place_of(init_from)
        self.save_hyperparameters({"learn": learn, "init_from": init_from})

    def _check_head(self, model: AdaptedBackbone) -> None:
        if model.config["head"] is None and self.loss_function is None and type(self).loss is TaskClassifier.loss:
            remedy = "Give `loss=`, or a head of your own in a LightningModule of your own."
            raise wrong_argument(
                "head", "'ridge' or 'linear' for cross-entropy, as features are no logits", None, remedy
            )

    def place_of(self, name: str | int) -> int:
        """The index of a task, which has no name."""
        most = 0 if self.context is None else max(0, self.context.num_tasks - 1)
        if not str(name).isdecimal() or int(name) > most:
            raise wrong_argument("init_from", f"'nearest', or the index of a task learned, from 0 to {most}", name)
        return int(name)

    def trained_parameters(self) -> list[nn.Parameter]:
        """Those of an optimizer: of dendrites on a backbone what is not frozen."""
        parameters = super().trained_parameters()
        return parameters if self.adapted is None else [p for p in parameters if p.requires_grad]

    def enter_task(self, task: int | None) -> int | None:
        """Take note of the task of a batch; let the column of another one start where ``init_from`` says."""
        started = super().enter_task(task)
        if started is not None and (model := self.adapted) is not None:
            for optimizer in self.trainer.optimizers:
                optimizer.state.pop(model.column, None)  # the moments are those of another task
            if (init_from := self.hparams["init_from"]) is not None:
                start = self._nearest_task(model, started) if init_from == "nearest" else self.place_of(init_from)
                model.start_from(start, started)
                self.started_from[started] = start
        return started

    def keep_until_trained(self, part: nn.Module, *, recurse: bool = True, but: tuple[str, ...] = ()) -> None:
        """Of dendrites on a backbone a task changes more than the context, but not the backbone or what was solved."""
        if self.adapted is not None:
            self.adapted.merge()
            part, but = self.adapted, (*but, "extractor.", "heads.ridge_weight", "heads.random.0.")
        super().keep_until_trained(part, recurse=recurse, but=but)

    def undo_start(self) -> None:
        """Let the column be that of the task before, too."""
        undone = bool(self._before)
        super().undo_start()
        if (model := self.adapted) is not None and undone:
            model.learning = self.boundary.task
            if model.learning is not None:
                with torch.no_grad():
                    model.column.copy_(model.columns[model.learning])

    def on_fit_start(self) -> None:
        """Train a model that was loaded, in eval mode, as any other; keep Lightning from warning of its backbone."""
        super().on_fit_start()
        self._solved_at = None  # another fit counts its steps from 0
        if self.adapted is not None:
            self.adapted.train()  # in eval mode the gradient would be that of a solved head
        if self.adapted is not None and self.adapted.extractor is not None:
            count = sum(1 for _ in self.adapted.extractor.modules())
            warnings.filterwarnings("ignore", message=rf"Found {count} module\(s\) in eval mode")

    def on_fit_end(self) -> None:
        """Leave a model whose output is that of its solved head, without a call of ``eval()``, too."""
        super().on_fit_end()
        if self.adapted is not None:
            self.adapted.eval()

    def on_validation_start(self) -> None:
        """Solve the head of the current task, in a fit."""
        self._solve_head()

    def on_train_epoch_end(self) -> None:
        """Solve the head of the current task, where no validation did."""
        self._solve_head()

    def _solve_head(self) -> None:
        model, state = self.adapted, self.trainer.state
        if model is None or model.learning is None or state.fn != "fit" or self.trainer.sanity_checking:
            return
        now = model.learning, self.trainer.global_step
        if model.config["head"] == "ridge" and now != self._solved_at:
            training = model.training
            model.fit_head(model.learning, self.task_batches())
            model.train(training)
            self._solved_at = now

    def _nearest_task(self, model: AdaptedBackbone, task: int) -> int | None:
        """The earlier task with whose gates a head does best on held-out batches; None for gates of 1."""
        known = model.context.counts.nonzero().flatten().tolist()
        candidates = [None, *(other for other in known if other != task)]
        batches = list(islice(self.task_batches(), HELD_OUT))
        return model.nearest_task(candidates, batches) if len(candidates) > 1 else None
