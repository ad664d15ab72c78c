"""An old name of an argument, in Python or in a checkpoint, is answered with the new one, in one line."""

from __future__ import annotations

import inspect

import lightning
import pytest
import torch

from dendrite_zoo import callbacks, regularizers
from dendrite_zoo._core.names import RENAMED
from dendrite_zoo.contexts import ClusterContext
from dendrite_zoo.lightning_modules import BehaviorCloning, ContinualClassifier, MultiTaskSAC, ReplayClassifier
from dendrite_zoo.models import (
    ActiveDendriteClassifier,
    ActiveDendriteMLP,
    ActiveDendritePolicy,
    MLPConfig,
    TwinCritic,
    XdGClassifier,
)
from dendrite_zoo.streams import DemonstrationMixture, DemonstrationSequence, PermutedTasks, RotatedTasks, SplitTasks

CALLS = [
    (ActiveDendriteMLP, "modulated", "dendrite_layers"),
    (ActiveDendriteClassifier, "modulated", "dendrite_layers"),
    (ActiveDendritePolicy, "modulated", "dendrite_layers"),
    (TwinCritic, "modulated", "dendrite_layers"),
    (XdGClassifier, "gated", "gate_fraction"),
    (ClusterContext, "false_alarm", "significance"),
    (callbacks.SynapticIntelligence, "strength", "si_lambda"),
    (callbacks.SynapticIntelligence, "damping", "eps"),
    (callbacks.ElasticWeightConsolidation, "strength", "ewc_lambda"),
    (regularizers.SynapticIntelligence, "damping", "eps"),
    (regularizers.ElasticWeightConsolidation, "strength", "ewc_lambda"),
    (PermutedTasks, "holdout", "val_fraction"),
    (RotatedTasks, "evaluate_after", "eval_at"),
    (SplitTasks, "holdout", "val_fraction"),
    (DemonstrationMixture, "emphasis", "task_weights"),
    (DemonstrationSequence, "batch_per_task", "batch_size_per_task"),
    (ContinualClassifier, "anneal", "lr_schedule"),
    (ReplayClassifier, "memory", "buffer_size"),
    (ReplayClassifier, "anneal", "lr_schedule"),
    (BehaviorCloning, "average", "ema_decay"),
    (MLPConfig, "modulated", "dendrite_layers"),
    (callbacks.RunRecorder, "row", "method"),
    (MultiTaskSAC, "anchor", "kl_coef"),
    (MultiTaskSAC, "entropy_coefficient", "init_alpha"),
    (MultiTaskSAC, "batch_per_task", "batch_size_per_task"),
]


@pytest.mark.parametrize("cls, old, new", CALLS)
def test_an_old_name_is_answered_with_the_new_one(cls, old, new):
    required = [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty and p.kind < 4]
    with pytest.raises(TypeError) as error:
        cls(**dict.fromkeys(required), **{old: 1})
    assert str(error.value) == f"`{old}` is now `{new}`." and new in RENAMED[old]


def test_signatures_are_those_of_the_classes_themselves():
    parameters = inspect.signature(ContinualClassifier).parameters
    assert parameters["lr"].default is None and parameters["lr"].kind is inspect.Parameter.KEYWORD_ONLY
    with pytest.raises(TypeError, match="^SynapticIntelligence has no argument `widths`. It takes si_lambda, eps"):
        callbacks.SynapticIntelligence(widths=3)


@pytest.mark.parametrize("cls", [PermutedTasks, ReplayClassifier, callbacks.SynapticIntelligence, MLPConfig])
def test_a_call_that_does_not_fit_names_the_class_that_was_called(cls):
    with pytest.raises(TypeError, match=f"^{cls.__name__}: too many positional arguments"):
        cls(*range(9))
    if any(
        p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in inspect.signature(cls).parameters.values()
    ):
        with pytest.raises(TypeError, match=f"^{cls.__name__}: missing a required argument"):
            cls()


def test_an_old_name_in_a_checkpoint_too(tmp_path):
    module = ContinualClassifier(ActiveDendriteClassifier(8, [8], 2, max_tasks=1))
    held = {"state_dict": module.state_dict(), "pytorch-lightning_version": lightning.__version__}
    torch.save({**held, "hyper_parameters": dict(module.hparams)}, tmp_path / "new.ckpt")
    torch.save({**held, "hyper_parameters": {**module.hparams, "anneal": True}}, tmp_path / "old.ckpt")
    assert ContinualClassifier.load_from_checkpoint(tmp_path / "new.ckpt").hparams == module.hparams
    with pytest.raises(TypeError, match="^`anneal` is now `lr_schedule`.$"):
        ContinualClassifier.load_from_checkpoint(tmp_path / "old.ckpt")


@pytest.mark.parametrize("name", callbacks.__all__)
def test_a_misspelt_argument_of_any_callback_is_answered(name):
    cls = getattr(callbacks, name)
    parameters = inspect.signature(cls).parameters.values()
    last = [p.name for p in parameters][-1]
    required = [p.name for p in parameters if p.default is p.empty]
    with pytest.raises(TypeError, match=f"^{name} has no argument `{last}e`. Did you mean '{last}'"):
        cls(**dict.fromkeys(required), **{f"{last}e": 1})
