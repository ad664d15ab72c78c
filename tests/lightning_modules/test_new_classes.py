"""learn="new" in ContinualClassifier: a pretrained classifier learns more tasks, and earlier ones stay to the bit."""

from __future__ import annotations

import copy
import re
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

import dendrite_zoo
from dendrite_zoo.callbacks import ElasticWeightConsolidation, ForgettingLogger, SynapticIntelligence
from dendrite_zoo.cli.run_folder import LastCheckpoint
from dendrite_zoo.contexts import OneHotContext
from dendrite_zoo.contexts.base import measuring
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP
from dendrite_zoo.streams import PermutedTasks, TaskSequence
from tests.training import Crash, CrashAt, data

pytestmark = pytest.mark.filterwarnings("ignore:.*says that the tasks before")  # some are hardly trained here
KINDS = {
    "columns": {"context": "one-hot", "activation_density": 0.25},
    "subnetworks": {"winners": "context", "activation_density": 0.25},
    "given subnetworks": {"winners": "context", "context": "one-hot", "activation_density": 0.25},
}


def trainer(stream, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    checkpoints = any(isinstance(callback, LastCheckpoint) for callback in callbacks)
    return Trainer(
        **stream.trainer_kwargs(), **quiet, **options, enable_checkpointing=checkpoints, callbacks=[*callbacks]
    )


def small(kind, max_tasks=5, **arguments):
    torch.manual_seed(0)
    return ActiveDendriteClassifier(8, [24, 24], 3, max_tasks=max_tasks, num_segments=3, **KINDS[kind], **arguments)


def module(model, **arguments):
    at_test = {} if model.context.inferable else {"context_at_test": "given"}
    return ContinualClassifier(model, **{"lr": 0.02, "learn": "new", **at_test, **arguments})


def stream(num_tasks, first_task=0):
    return PermutedTasks(data(24), num_tasks, first_task=first_task, epochs_per_task=2, batch_size=8)


def outputs(model, tasks):
    x = torch.randn(50, model.config["in_features"], generator=torch.Generator().manual_seed(3))
    mixed = torch.arange(50) % tasks
    with torch.no_grad(), measuring():
        return [*(model(x, task=task) for task in range(tasks)), model(x, task=mixed)]


def equal(one, other):
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


def test_the_zoos_model_learns_two_more_tasks_and_forgets_nothing(tmp_path):
    """And is better at them than a column of gates would be; the weights of its ten tasks are nowhere touched."""
    torch.manual_seed(0)
    model = dendrite_zoo.load("permuted-digits", max_tasks=12)
    before, learning = outputs(model, 10), {name for name, p in model.named_parameters() if p.requires_grad}
    tasks = PermutedTasks("digits", num_tasks=12, first_task=10, epochs_per_task=5, batch_size=64)
    decayed = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1)
    classifier, log = module(model, optimizer=decayed), ForgettingLogger("val/acc", folder=tmp_path, pictures=False)
    fits = trainer(tasks, log, gradient_clip_val=1.0, log_every_n_steps=5)
    fits.validate(classifier, tasks, verbose=False)
    fits.fit(classifier, tasks)
    assert equal(outputs(model, 10), before) and float(fits.callback_metrics["forgetting"]) == 0.0
    assert log.matrix[10, :10].equal(log.matrix[9, :10]) and log.matrix[11, :11].equal(log.matrix[10, :11])
    assert log.matrix[11, 10:].min() > 0.9 and model.num_tasks == 12
    assert classifier.new.num_parameters < 0.1 * sum(p.numel() for p in model.parameters())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learning
    after = outputs(model, 12)
    model.save_pretrained(tmp_path)
    assert equal(outputs(dendrite_zoo.load(tmp_path), 12), after)


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_first_task_on_each_is_finished_when_the_next_begins(kind, tmp_path):
    model = small(kind)
    seen = []

    class Seen(ContinualClassifier):
        def on_validation_end(self):
            seen.append(outputs(self.model, 5)[:5])

    at_test = "inferred" if kind == "subnetworks" else "given"
    classifier = Seen(model, learn="new", lr=0.02, context_at_test=at_test)
    trainer(stream(4)).fit(classifier, stream(4))
    for task in range(4):
        last = 2 * task + 1
        assert not seen[last][task].equal(seen[last - 1][task])
        assert all(after[task].equal(seen[last][task]) for after in seen[last:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [2, 7, 12])
def test_a_crash_changes_nothing(kind, step, tmp_path):
    def train(folder, crash=None):
        tasks, last = stream(3), tmp_path / folder / "last.ckpt"
        callbacks = [LastCheckpoint(last.parent, seconds=0), *([CrashAt(crash)] if crash else [])]
        classifier = module(small(kind))
        fits = trainer(tasks, *callbacks)
        fits.fit(classifier, tasks, ckpt_path=last if last.exists() else None, weights_only=True)
        return classifier.state_dict()

    whole = train("whole")
    with pytest.raises(Crash):
        train("crashed", step)
    for (name, one), other in zip(whole.items(), train("crashed").values(), strict=True):
        assert one.equal(other), name


@pytest.mark.parametrize("kind", KINDS)
def test_new_classes_have_rows_of_their_own(kind, tmp_path):
    """Tasks of classes 0, 1, 2, then of 3, then of 4: the logits of a class are fixed when its task has ended."""
    model = small(kind, output_bias=kind == "columns")
    trainer(stream(1)).fit(module(model), stream(1))
    model.save_pretrained(tmp_path)
    model = dendrite_zoo.load(tmp_path, num_classes=5, max_tasks=6)
    old = [logits[:, :3] for logits in outputs(model, 1)]
    x, y, x_test, y_test = data(24)
    more = [(x, y * 0 + number, x_test, y_test * 0 + number) for number in (3, 4)]
    tasks = TaskSequence([stream(1), *more], first_task=1, epochs_per_task=2, batch_size=8)
    rows = []

    class Seen(ContinualClassifier):
        def on_validation_end(self):
            rows.append(self.model.mlp.output.weight.detach().clone())

    classifier = Seen(model, learn="new", lr=0.02, context_at_test="inferred" if kind == "subnetworks" else "given")
    with pytest.warns(UserWarning, match="The logits of all other classes are equal to the bit") as warned:
        trainer(tasks).fit(classifier, tasks)
    said = re.findall(r"classes that no earlier one had, (\S+)\.", " ".join(str(one.message) for one in warned))
    assert said == ["[3]", "[4]"]
    assert equal([logits[:, :3] for logits in outputs(model, 1)], old)
    assert rows[1][3].any() and not rows[1][4].any() and rows[-1][4].any() and classifier.new.classes[4]
    if kind == "columns":  # all units are shared
        assert rows[-1][:4].equal(rows[1][:4])


def test_classes_that_only_the_first_task_trained_are_said():
    """Rows that were there, and were trained as those of no class: the next task cannot learn them."""
    torch.manual_seed(0)
    model = ActiveDendriteClassifier(8, [24], 4, max_tasks=3, num_segments=3, **KINDS["columns"])
    x, y, x_test, y_test = data(24)
    halves = [(x, y % 2 + add, x_test, y_test % 2 + add) for add in (0, 2)]
    first, both = (TaskSequence(halves[:n], first_task=n - 1, epochs_per_task=20, batch_size=8) for n in (1, 2))
    trainer(first).fit(module(model), first)
    head = model.mlp.output.weight.detach().clone()
    with pytest.warns(
        UserWarning, match=r"earlier tasks hardly ever give a class of this one, \[2, 3\].* num_classes="
    ):
        trainer(both).fit(module(model), both)
    assert head.equal(model.mlp.output.weight)


def test_a_copy_that_is_made_in_a_fit_learns():
    copies = []

    class Keep(Callback):
        def on_train_epoch_end(self, trainer, module):
            copies[:] = [copy.deepcopy(module.model)]

    model = small("columns")
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    trainer(stream(2), Keep()).fit(module(model), stream(2))
    (kept,) = copies
    assert {name for name, p in kept.named_parameters() if p.requires_grad} == learning
    assert equal(outputs(kept, 2), outputs(model, 2))


def test_columns_start_from_the_nearest_task_or_one_by_index():
    model = small("columns")
    tasks = stream(2)
    trainer(tasks).fit(module(model), tasks)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    classifier = module(model, init_from=1)
    trainer(stream(3, 2), max_steps=1).fit(classifier, stream(3, 2))
    assert classifier.started_from == {2: 1}
    model = small("columns")
    model.load_state_dict(state)
    again = module(model, init_from="nearest")
    trainer(stream(3, 2), max_steps=1).fit(again, stream(3, 2))
    x, y = next(iter(stream(3).task_loader(2, "val")))
    losses = {}
    for task in (None, 0, 1):
        with torch.no_grad():
            for layer in model.mlp.hidden:
                layer.segments[..., 2] = 0 if task is None else layer.segments[..., task]
            losses[task] = nn.functional.cross_entropy(model(x, task=2), y)
    assert again.started_from == {2: min(losses, key=losses.get)}


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm1d(8),
        lambda: nn.Sequential(nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten(1)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)),
        lambda: nn.utils.spectral_norm(nn.Linear(8, 8)),
    ],
)
def test_a_network_of_ones_own_with_norms(norm):
    """Whatever has dendrites and one-hot contexts; a norm that learned its statistics keeps them."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.mlp = norm(), ActiveDendriteMLP(8, [24], 3, context_dim=4, num_segments=2)

        def forward(self, x, context):
            return self.mlp(self.norm(x), context)

    model, context = Own(), OneHotContext(4)
    classifier = ContinualClassifier(model, context=context, learn="new", lr=0.02, context_at_test="given")
    trainer(stream(2)).fit(classifier, stream(2))
    before = [classifier.eval()(torch.ones(4, 8), task).detach() for task in range(2)]
    classifier.train()
    trainer(stream(3, 2)).fit(classifier, stream(3, 2))
    assert equal([classifier.eval()(torch.ones(4, 8), task).detach() for task in range(2)], before)
    assert not classifier(torch.ones(4, 8), 2).equal(before[0])


def test_a_task_that_was_learned_before_is_said():
    model = small("subnetworks")
    trainer(stream(2)).fit(module(model), stream(2))
    with pytest.warns(UserWarning, match=r"task 0 was learned before.* For a new task give first_task=2"):
        trainer(stream(2), max_steps=1).fit(module(model), stream(2))


@pytest.mark.parametrize("callback", [SynapticIntelligence(1.0), ElasticWeightConsolidation(1.0)])
def test_there_is_nothing_to_consolidate(callback):
    name = type(callback).__name__
    with pytest.raises(ValueError, match=f"a module without learn='new' for {name}, .* nothing to consolidate"):
        trainer(stream(2), callback).fit(module(small("subnetworks")), stream(2))


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ({}, {}, "network with a part for each task, but got ActiveDendriteClassifier .*context='one-hot'.*winners="),
        ({"context": "clusters"}, {}, "Expected `learn` to be 'all', but got 'new' with ClusterContext"),
        (KINDS["subnetworks"], {"init_from": "nearest"}, "Expected `init_from` to be None but with one-hot contexts"),
        (KINDS["columns"], {"init_from": "reach-v3"}, "'nearest', or the index of a task learned"),
        (KINDS["columns"], {"init_from": 3}, "'nearest', or the index of a task learned, from 0 to 0, but got 3"),
        (KINDS["columns"], {"learn": "newest"}, "Expected `learn` to be one of 'all', 'new'"),
    ],
)
def test_wrong_arguments(model, arguments, message):
    network = ActiveDendriteClassifier(8, [24], 3, max_tasks=4, **model)
    with pytest.raises(ValueError, match=message):
        module(network, **arguments)
    with pytest.raises(ValueError, match="network with a part for each task, but got Linear"):
        ContinualClassifier(nn.Linear(8, 3), learn="new")


@pytest.mark.parametrize("bias", [True, False])
def test_a_classifiers_new_task_starts_as_a_copy_of_another_subnetwork(bias, tmp_path):
    """Also where an output bias that all tasks share stays as it is, and layers were widened for the task."""
    model = small("given subnetworks", max_tasks=2, overlap=0.0, output_bias=bias)
    trainer(stream(2)).fit(module(model), stream(2))
    model.save_pretrained(tmp_path)
    more = ActiveDendriteClassifier.from_pretrained(tmp_path, max_tasks=5)
    before = outputs(more, 2)
    with torch.no_grad():
        copied = more(torch.ones(4, 8), task=1)
    one = module(more, init_from=1, lr=1e-9)
    trainer(stream(3, first_task=2)).fit(one, stream(3, first_task=2))
    assert one.started_from == {2: 1} and equal(outputs(more, 2), before)
    with torch.no_grad():
        torch.testing.assert_close(more(torch.ones(4, 8), task=2), copied, rtol=1e-4, atol=1e-5)
    nearest = module(more, init_from="nearest")
    trainer(stream(4, first_task=3)).fit(nearest, stream(4, first_task=3))
    assert 3 in nearest.started_from and equal(outputs(more, 2), before)
