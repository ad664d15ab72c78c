"""Publishing a model to the Hub while it is trained, without interrupting training."""

import contextlib
import logging
import shlex
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import Callback, LightningModule, Trainer

from dendrite_zoo._core.checks import check_choice
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo.callbacks.forgetting import ForgettingLogger
from dendrite_zoo.callbacks.run_recorder import RunRecorder, where_context_is_from
from dendrite_zoo.callbacks.trainer import find_callback, output_folder
from dendrite_zoo.hub import HubModel
from dendrite_zoo.hub.resolve import check_repo
from dendrite_zoo.records import ContextAtTest
from dendrite_zoo.tasks import TaskBoundary, current_task, has_task, unknown_task

logger = logging.getLogger(__name__)

Every = Literal["fit_end", "task_end"]


@say_new_names
class HubPublisher(Callback):
    """Publishes the model to the Hugging Face Hub when training, or each task, has ended.

    The first process saves the model to a folder of its own, and a thread sends it (`dendrite_zoo.hub.publish.upload`:
    one commit, a tag, a card with the record of the run). Where
    that fails, training goes on: a warning says why, the folder stays, and the command that tries again is printed.
    The token is the one of ``hf auth login`` or ``HF_TOKEN``; it is no argument, for arguments end in configs.

    A release has the result record that the `RunRecorder` of the Trainer collects, or one of its own where there is
    none: where a `ForgettingLogger` has measured every task so far since the last one was trained on, and where it is
    known how the context was found then.

    Args:
        repo_id: ``org/name``; made where missing.
        every: ``"fit_end"``, or ``"task_end"`` for a release after each task.
        private: make it a private repo.
        revision: branch.
        task: from the Trainer to the task being trained; by default the ``current_task`` of datamodule or module.
        folder: where models are saved until they are sent; by default ``hub/`` where the Trainer's logger writes.
        wait: seconds that the end of training waits at most for what is still being sent.
        context_at_test: where the context came from in validation, for the result record: ``"inferred"``,
            ``"given"``, ``"none"`` or ``"constant"``. By default ``"none"`` for a model without a context, else what
            the module keeps under this name in its ``hparams``.

    Attributes:
        releases: what was published.

    Raises:
        ValueError: ``repo_id`` is no name, the module trains no model that can be published, nobody says which task is
            trained on, or ``every`` or ``context_at_test`` is none of those named.

    Example:
        >>> HubPublisher("you/permuted-mnist-10", every="task_end").releases
        []
    """

    def __init__(
        self,
        repo_id: str,
        every: Every = "fit_end",
        *,
        private: bool | None = None,
        revision: str = "main",
        task: Callable[[Trainer], int] | None = None,
        folder: str | Path | None = None,
        wait: float = 600.0,
        context_at_test: ContextAtTest | None = None,
    ) -> None:
        check_repo(repo_id)
        check_choice(get_args(Every), every=every)
        self._recorder = RunRecorder(context_at_test=context_at_test)  # where the Trainer has none
        self.repo_id, self.every, self.private, self.revision = repo_id, every, private, revision
        self.task, self.folder, self.wait, self.context_at_test = task, folder, wait, context_at_test
        self._folder: Path | None = None  # of the fit at hand
        self.releases: list[Any] = []
        self._boundary = TaskBoundary()
        self._unsent: list[Path] = []
        self._sending: threading.Thread | None = None  # the latest release, after those before it

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the task trained on."""
        return f"{type(self).__qualname__}[{self.repo_id}]"

    def state_dict(self) -> dict[str, Any]:
        """The task trained on, and the time it took so far."""
        return {"boundary": self._boundary.state_dict(), "recorder": self._recorder.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stood: what it had released is not released again."""
        self._boundary.load_state_dict(state_dict["boundary"])
        self._recorder.load_state_dict(state_dict["recorder"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make sure that there is a model to publish, before any work is done."""
        if stage != "fit":
            return
        model = _model(pl_module)
        if self.every == "task_end" and not has_task(trainer, self.task):
            raise unknown_task(trainer, type(self).__name__)
        log = find_callback(trainer, ForgettingLogger)
        asked = self.context_at_test or self._recorder_of(trainer).context_at_test
        if log is not None and trainer.is_global_zero and where_context_is_from(pl_module, asked) is None:
            logger.warning(
                "HubPublisher releases no result record: %s does not say in hparams['context_at_test'] where the "
                "context of its %s comes from in validation; expected one of %s. Pass it as context_at_test=.",
                type(pl_module).__name__, type(model).__name__, ", ".join(get_args(ContextAtTest)),
            )  # fmt: skip

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the folder."""
        base = output_folder(trainer, self.folder)
        self._folder = base if base is None or self.folder is not None else base / "hub"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._recorder.on_train_start(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Publish what has learned a task, before it learns the next."""
        ended, _ = self._boundary.update(current_task(trainer, self.task))
        if ended is not None and self.every == "task_end":
            self._release(trainer, pl_module, ended)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the trained model, and wait a while for it to be sent."""
        self._release(trainer, pl_module, self._boundary.task)
        if self._sending is not None:
            self._sending.join(min(self.wait, threading.TIMEOUT_MAX))
        for folder in list(self._unsent):
            self._warn(folder, f"it could not be sent within {self.wait:.0f} s")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say what was not sent yet."""
        for folder in list(self._unsent):
            self._warn(folder, "training broke off before it was sent")

    def _release(self, trainer: Trainer, pl_module: LightningModule, task: int | None) -> None:
        if self._folder is None:
            return
        folder = self._folder / f"step-{trainer.global_step}"
        model = _model(pl_module)
        known = {} if self.context_at_test is None else {"context_at_test": self.context_at_test}
        record = self._recorder_of(trainer).collect(trainer, pl_module, task=task, **known)
        averaged = getattr(pl_module, "averaged", contextlib.nullcontext)  # the weights that are meant to be used
        try:
            with averaged():
                model.save_pretrained(folder, results=None if record is None else [record.to_json()])
        except OSError as error:
            logger.warning("%s is not published: %s", self.repo_id, error)
            return
        self._unsent.append(folder)
        arguments = folder, self._sending
        self._sending = threading.Thread(target=self._send, args=arguments, name="HubPublisher", daemon=True)
        self._sending.start()

    def _recorder_of(self, trainer: Trainer) -> RunRecorder:
        return find_callback(trainer, RunRecorder) or self._recorder

    def _send(self, folder: Path, earlier: threading.Thread | None) -> None:
        from dendrite_zoo.hub.publish.upload import publish

        if earlier is not None:
            earlier.join()
        try:
            release = publish(folder, self.repo_id, private=self.private, revision=self.revision)
        except Exception as error:  # whatever happens there, training goes on
            self._warn(folder, str(error))
        else:
            self.releases.append(release)
            logger.info("published %s as %s: %s", self.repo_id, release.tag, release.url)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            self._unsent.remove(folder)

    def _warn(self, folder: Path, why: str) -> None:
        options = " --private" if self.private else ""
        options += f" --revision {self.revision}" if self.revision != "main" else ""
        logger.warning(
            "%s is not published: %s\nThe model stays in its folder. To try again: dendrite-zoo publish %s --repo %s%s",
            self.repo_id, why, shlex.quote(str(folder)), self.repo_id, options,
        )  # fmt: skip


def _model(pl_module: LightningModule) -> HubModel:
    """Give the model that a module trains: itself, or its ``model``."""
    for candidate in (pl_module, getattr(pl_module, "model", None)):
        if isinstance(candidate, HubModel):
            return candidate
    raise ValueError(
        f"HubPublisher cannot publish {type(pl_module).__name__}: neither it nor its .model is a "
        "dendrite_zoo.hub.HubModel; expected a model of dendrite_zoo.models, or one of yours that inherits it."
    )
