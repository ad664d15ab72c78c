"""Corners of Lightning and torch that have private names only, and what holds in a version that lacks one."""

import contextlib
import copy
import math
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import islice
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.optim import Optimizer
from torch.utils.data import IterableDataset
from torchmetrics import Metric


def require(owner: type, *names: str) -> None:
    """Refuse a version of Lightning in which a class lacks private methods that are overridden.

    Raises:
        ImportError: an override would never be called.
    """
    missing = [name for name in names if not hasattr(owner, name)]
    if missing:
        raise ImportError(
            f"Expected lightning 2.6, but got lightning {version('lightning')}, whose {owner.__name__} has no "
            f"{', '.join(missing)}. Install a version that dendrite-zoo supports: pip install 'lightning>=2.6,<2.7'."
        )


def attached_trainer(module: LightningModule) -> Trainer | None:
    """The Trainer of a module; None without one, where ``module.trainer`` raises."""
    try:
        return module.trainer
    except RuntimeError:
        return None


def compile_forward_alone(module: LightningModule) -> None:
    """Of a module under `torch.compile` let Lightning run the steps as they are, which log and look at numbers."""
    compiled = getattr(module, "_compiler_ctx", None) or {}
    for name, step in compiled.items():
        if name.endswith("_step"):
            setattr(module, name.removeprefix("original_"), step)


def averaging(trainer: Trainer) -> tuple[str, bool]:
    """Which callback of Lightning averages weights while they are trained, empty if none; and whether buffers, too."""
    kinds = WeightAveraging, StochasticWeightAveraging
    found = [one for one in trainer.callbacks if isinstance(one, kinds)]  # type: ignore[attr-defined]
    buffers = any(getattr(one, "_use_buffers", True) for one in found if isinstance(one, WeightAveraging))
    return type(found[0]).__name__ if found else "", buffers


def refuse_swa(trainer: Trainer | None) -> None:
    """Refuse an average over epochs where each task has parameters of its own in turn.

    Raises:
        ValueError: there is one; by it, what is fixed would change to what it was before its task.
    """
    callbacks = [] if trainer is None else trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        raise ValueError(
            "Expected no StochasticWeightAveraging beside learn='new': it averages the weights of one task after "
            "another, and outputs of earlier tasks would change. Leave the callback out, or use learn='all'."
        )


def warn_of_average(trainer: Trainer) -> None:
    """Warn where a task begins, behind another one of the fit, whose weights go on to change in a moving average."""
    if trainer.global_step and (name := averaging(trainer)[0]):
        rank_zero_warn(
            f"Beside {name} the weights of a task that has ended in this fit still change, for their average follows "
            "them: outputs of earlier tasks are not equal to the bit, as learn='new' has them. Train each task in a "
            "fit of its own, or leave the callback out."
        )


def second_pass(loader: Any) -> Any:
    """A loader of the same batches, to be gone through while training is within the first.

    A `torch.utils.data.DataLoader` with persistent workers has one iterator, which a second pass would start again;
    the copy makes an iterator and workers of its own.
    """
    loader = copy.copy(loader)
    if getattr(loader, "persistent_workers", False):
        loader._iterator = None
    return loader


def has_loaders(trainer: Trainer, stage: str) -> bool:
    """Whether a ``"validate"`` or ``"test"`` was given loaders, as an argument, by a datamodule or by the module."""
    source = getattr(trainer.validate_loop if stage == "validate" else trainer.test_loop, "_data_source", None)
    return source is None or bool(source.is_defined())


def training_data_given(trainer: Trainer) -> Any:
    """What a fit was given to train on, as an argument, before Lightning looks at it; None where it is not known."""
    source = getattr(trainer.fit_loop, "_data_source", None)
    return source.instance if source is not None and not source.is_module() else None


def validation_of(trainer: Trainer, number: int) -> Iterable[Any]:
    """The validation loader of this number; where it has no batches, the training loader."""
    data: Any = getattr(trainer, "datamodule", None)
    own = data is not None and is_overridden("val_dataloader", data, LightningDataModule)
    loaders = data.val_dataloader() if own else trainer.val_dataloaders
    loaders = loaders if isinstance(loaders, (list, tuple)) else [loaders]
    found = [loader for loader in loaders[number : number + 1] if loader is not None and len(loader)]
    return found[0] if found else second_pass(trainer.train_dataloader)


def whole_pass(trainer: Trainer) -> Iterator[Any]:
    """The training batches of an epoch, as a step gets them, to be gone through before they are trained on.

    Of data without end they are as many as the Trainer takes, by ``limit_train_batches`` or ``max_steps``.

    Raises:
        ValueError: data that can be read but once, and would be gone when training begins.
    """
    data = getattr(trainer, "datamodule", None)
    loader = trainer.train_dataloader if data is None else data.train_dataloader()
    source = loader if isinstance(loader, Iterator) else getattr(loader, "dataset", None)
    if isinstance(source, Iterator) or (isinstance(source, IterableDataset) and iter(source) is iter(source)):
        raise ValueError(
            "Expected training data that can be read more than once, for the context of a task is computed in a pass "
            f"before it is trained, but got {type(source).__name__}, which is used up by then. Let __iter__ begin anew "
            "each time, or keep the rows in a list."
        )
    batches = trainer.num_training_batches
    if math.isinf(batches) and trainer.max_steps > 0:
        batches = trainer.max_steps * trainer.accumulate_grad_batches
    for batch in islice(second_pass(loader), None if math.isinf(batches) else int(batches)):
        yield transfer_batch(trainer, batch)


def looks_between_updates(module: LightningModule, optimizer: Optimizer) -> bool:
    """Whether a module, its callbacks or hooks are called with gradients, or after a step, before a batch has ended.

    A callback with an attribute ``reads_gradients`` that is False looks at nothing there.
    """
    hooks = "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad"
    callbacks: list[Any] = [c for c in module.trainer.callbacks if getattr(c, "reads_gradients", True)]  # type: ignore[attr-defined]
    owners = [(module, LightningModule), *((callback, Callback) for callback in callbacks)]
    if any(is_overridden(hook, owner, kind) for owner, kind in owners for hook in hooks):
        return True
    of_steps = "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"
    of_gradients = "_backward_hooks", "_post_accumulate_grad_hooks"
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    asked = [(optimizer, of_steps), *((parameter, of_gradients) for parameter in parameters)]
    return any(getattr(owner, name, None) for owner, names in asked for name in names)


def logging_step(trainer: Trainer) -> int:
    """The step under which Lightning itself logs: the batches that stepped.

    ``trainer.global_step``, which stands in where this count is missing, counts the steps of every optimizer.
    """
    return getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step)


def launches_copies(trainer: Trainer) -> bool:
    """Whether a run is in processes with copies of the Trainer, spawned or forked, and not in those of a script.

    Without the private attribute by which such a launcher is known, none is.
    """
    return hasattr(trainer.strategy.launcher, "_start_method")


def loaders_given(trainer: Trainer) -> Any:
    """The loaders of the validation or test at hand as they were given: one, a list, ...; None where it is not known.

    ``trainer.val_dataloaders`` has those of an earlier fit, even in a ``trainer.validate``.
    """
    combined = getattr(getattr(trainer, "_evaluation_loop", None), "_combined_loader", None)
    return getattr(combined, "iterables", None)


def logged_metrics(trainer: Trainer) -> dict[str, tuple[Metric, int | None]]:
    """The torchmetrics objects that the loop at work has logged: key in ``trainer.callback_metrics`` -> object, loader.

    The loader is None where there is one, and for what was logged at an epoch's end. Where Lightning keeps its results
    otherwise than 2.6 does, there is a warning, and no object is found.
    """
    found = {}
    try:
        for result in (trainer._results or {}).values():
            if not result.is_tensor and not result.has_reset:
                meta = result.meta
                suffix = "" if meta.dataloader_idx is None else f"/dataloader_idx_{meta.dataloader_idx}"
                for name in (meta.name, meta.forked_name(on_step=False)):
                    key = name + suffix * meta.add_dataloader_idx
                    found[key] = result.value, meta.dataloader_idx
    except AttributeError as error:
        rank_zero_warn(
            f"Expected the results of lightning 2.6, but got lightning {version('lightning')} ({error}): a "
            "torchmetrics object that several loaders share is not recognised, and its values contain those of earlier "
            "loaders. Use one metric for each loader, in an `nn.ModuleList`."
        )
    return found


def transfer_batch(trainer: Trainer, batch: Any) -> Any:
    """A batch of a loader as the Trainer would hand it to a step: converted, moved, and through all transfer hooks.

    For code that goes through a loader by itself; a datamodule may normalise its batches in these hooks. Where
    Lightning lacks its own caller of the hooks, the module's public hook is called.

    Args:
        trainer: the Trainer at work.
        batch: one batch of the loader.
    """
    module = trainer.lightning_module
    batch = trainer.precision_plugin.convert_input(batch)
    before = getattr(module, "_on_before_batch_transfer", module.on_before_batch_transfer)
    return trainer.strategy.batch_to_device(before(batch, dataloader_idx=0))


def unscale_gradients(trainer: Trainer, optimizer: Optimizer) -> bool:
    """Undo the scale of 16-bit gradients before an optimizer steps, where Lightning has not done so.

    Lightning leaves the gradients of fused optimizers scaled. Without the private mark by which torch recognises those,
    the gradients of every optimizer count as unscaled.

    Returns:
        Whether a scaler is at work, which skips a step whose gradients are not finite.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
        with contextlib.suppress(RuntimeError):  # it was unscaled before
            scaler.unscale_(optimizer)
    return scaler is not None


def resume_missed_validation(trainer: Trainer) -> bool:
    """Make a run that is resumed from an epoch's last batch finish that epoch: validate, then end it.

    Such a checkpoint (of ``ModelCheckpoint(every_n_train_steps=...)``, say) was taken before the
    validation that follows the batch. Lightning takes the epoch for done and goes on with the next: the
    validation is lost, for the last epoch of a fit too, and so is the count of epochs, by which a second
    crash would be resumed wrongly. This function takes the run back to where it was: Lightning itself then
    runs the validation, in its usual place, with ``trainer.current_epoch`` and the logged step of the run
    that was not interrupted, and the hooks that follow.

    Call it in ``on_train_start``, as often as you like: once the run stands right, or where nothing was
    missed, it does nothing. The streams of this package call it by themselves, which is enough where every
    epoch is validated.

    Args:
        trainer: the Trainer, about to train.

    Returns:
        Whether a validation was missed, and will be run first. Where Lightning keeps the progress of its loops
        otherwise than 2.6 does, there is a warning, and nothing is changed.
    """
    try:
        return _reopen_epoch(trainer)
    except (ImportError, AttributeError) as error:
        rank_zero_warn(
            f"Expected the loops of lightning 2.6, but got lightning {version('lightning')} ({error}): a validation "
            "that a crash prevented is not repeated. Install a version of lightning that dendrite-zoo supports."
        )
        return False


def _reopen_epoch(trainer: Trainer) -> bool:
    from lightning.pytorch.loops.evaluation_loop import RestartStage as ValidationRestart
    from lightning.pytorch.loops.training_epoch_loop import RestartStage as TrainingRestart

    fit_loop = trainer.fit_loop
    epoch_loop, val_loop = fit_loop.epoch_loop, fit_loop.epoch_loop.val_loop
    batches, epochs = epoch_loop.batch_progress, fit_loop.epoch_progress
    resumed_after_batch = fit_loop.restarted_mid_epoch and epoch_loop.restarted_on_train_batch_end
    if not (resumed_after_batch and batches.is_last_batch and epochs.current.completed == epochs.current.ready):
        return False  # no validation was missed, or Lightning has not counted the epoch as done yet

    _count_epoch(epochs, -1)
    assert fit_loop._data_fetcher is not None
    if not epoch_loop._should_check_val_fx(fit_loop._data_fetcher):
        _count_epoch(epochs, +1)
        fit_loop.reset_restart_stage()  # so that the next epoch begins as epochs do, and is counted
        return False

    # "The last batch is done, its validation was begun": the state to which `_TrainingEpochLoop.advance` goes back.
    batches.increment_completed()
    epoch_loop._restart_stage = TrainingRestart.RESTARTED_ON_LAST
    val_loop._restart_stage = ValidationRestart.RESTARTED_MID_EVALUATION
    val_loop.restarting = False
    val_loop.batch_progress.reset()
    val_loop._last_val_dl_reload_epoch = float("-inf")  # the loaders at hand may be the next epoch's
    return True


def _count_epoch(epochs: Any, by: int) -> None:
    for progress in (epochs.total, epochs.current):
        progress.processed += by
        progress.completed += by
