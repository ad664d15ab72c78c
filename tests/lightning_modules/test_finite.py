"""A number that is not finite stops a fit before the weights are touched, and says where it is from."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.lightning_modules import BehaviorCloning, ContinualClassifier, MultiTaskSAC, ReplayClassifier
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendritePolicy
from dendrite_zoo.rl.demonstrations import Demonstrations
from dendrite_zoo.rl.replay import ReplayBuffer
from tests import training
from tests.lightning_modules.practice import practice, small_policy

NAN, INF = float("nan"), float("inf")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:The number of training batches", "ignore:You defined a `valid"
)


class Tasks(LightningDataModule):
    """Two tasks of five batches each, the second far from the first; a number of the second may be spoilt."""

    def __init__(self, value=None):
        super().__init__()
        x, y, *_ = training.data(40)
        self.sets = [(x, y), (x.flip(1) + 2, y)]
        self.num_tasks, self.epochs_per_task = 2, 1
        if value is not None:
            self.sets[1][0][8 * 3 + 5, 2] = value

    @property
    def current_task(self):
        return self.trainer.current_epoch

    def train_dataloader(self):
        return DataLoader(TensorDataset(*self.sets[self.current_task]), batch_size=8)


def trainer(folder, epochs=None, **options):
    options.setdefault("enable_checkpointing", False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    reload = {"max_epochs": epochs, "reload_dataloaders_every_n_epochs": 1}
    return Trainer(default_root_dir=folder, **{**quiet, **reload, "limit_val_batches": 0, **options})


def state_of(module):
    return copy.deepcopy(module.state_dict())


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def classifier(**arguments):
    torch.manual_seed(0)
    return ContinualClassifier(ActiveDendriteClassifier(8, [16], 3, max_tasks=2), **{"lr": 1e-2, **arguments})


@pytest.mark.parametrize("value", [NAN, INF, 1e20])
def test_a_bad_number_of_a_new_task_leaves_the_model_as_it_was(value, tmp_path):
    module, data = classifier(), Tasks(value)
    trainer(tmp_path, 1).fit(module, data)
    before, x = state_of(module), data.sets[0][0]
    with pytest.raises(
        ValueError, match=r"larger numbers in batch 3 \(from 0\) of the task, row 5. Nothing was learned"
    ):
        trainer(tmp_path, 2).fit(module, _Second(data))
    assert same(before, state_of(module)) and (module.model.context.infer(x) == 0).all()
    data.sets[1][0][29, 2] = 0.0  # mended, the same module goes on
    trainer(tmp_path, 2).fit(module, _Second(data))
    torch.testing.assert_close(module.model.context.prototypes[1], data.sets[1][0].mean(0))


class _Second(LightningDataModule):
    """The second task alone."""

    def __init__(self, tasks):
        super().__init__()
        self.tasks, self.num_tasks, self.current_task = tasks, 2, 1

    def train_dataloader(self):
        return DataLoader(TensorDataset(*self.tasks.sets[1]), batch_size=8)


class Save(Callback):
    """Saves where a fit ends by an exception, as many do."""

    def __init__(self, path):
        self.path = path

    def on_exception(self, trainer, module, exception):
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_loss_that_is_not_finite_stops_before_the_step(value, tmp_path):
    def run(epochs, spoil=None, **options):
        torch.manual_seed(0)
        module = ContinualClassifier(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), lr=1e-2)
        error = None
        try:
            trainer(tmp_path, epochs, **options).fit(module, Tasks(spoil))
        except ValueError as caught:
            error = str(caught)
        return module, error

    module, error = run(2, value, callbacks=[Save(tmp_path / "on_exception.ckpt")])
    got = r"Expected a finite loss, but got nan in update 8 \(epoch 1, batch 3\), which was not made. There is NaN or "
    assert re.match(rf"{got}infinity in `batch\[0\]`, rows \[5\]. Leave these rows out", error)
    expected, none = run(-1, max_steps=8)
    assert none is None and same(state_of(module), state_of(expected))
    saved = torch.load(tmp_path / "on_exception.ckpt", weights_only=True)["state_dict"]
    assert same(saved, state_of(expected))


def test_weights_that_are_not_finite_are_named_and_never_saved(tmp_path):
    module, fit = classifier(), trainer(tmp_path, 1)
    fit.fit(module, Tasks())
    module.model.mlp.output.bias.data[1] = NAN
    with pytest.raises(
        ValueError, match=r"`model.mlp.output.bias` has NaN or infinity. The checkpoint was not written"
    ):
        fit.save_checkpoint(tmp_path / "poisoned.ckpt")
    assert not (tmp_path / "poisoned.ckpt").exists()
    before = state_of(module)
    with pytest.raises(
        ValueError, match=r"update 0 .* `model.mlp.output.bias` has not been finite since an earlier step"
    ):
        trainer(tmp_path, 2).fit(module, Tasks())
    after = module.state_dict()
    assert all(torch.equal(before[name].nan_to_num(), after[name].nan_to_num()) for name in before)


def test_a_loss_of_finite_data_and_weights(tmp_path):
    module = classifier()
    module.model.mlp.output.bias.data.copy_(torch.tensor([3e38, -3e38, 0.0]))
    with pytest.raises(ValueError, match="Data and weights are finite. Lower `lr`, clip gradients"):
        trainer(tmp_path, 1).fit(module, Tasks())


def test_a_scaler_skips_by_itself_but_not_what_is_in_the_data(tmp_path):
    def scaled():
        return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))

    module = ContinualClassifier(nn.Linear(8, 3))
    with torch.no_grad():
        module.model.weight.fill_(6e4)  # overflows in float16
    before = state_of(module)
    trainer(tmp_path, 1, plugins=[scaled()]).fit(module, Tasks())
    assert same(before, state_of(module))
    with pytest.raises(ValueError, match=r"infinity in `batch\[0\]`, rows \[5\]"):
        trainer(tmp_path, 2, plugins=[scaled()]).fit(ContinualClassifier(nn.Linear(8, 3)), Tasks(NAN))


def test_half_precision_that_loses_the_weights_is_no_silent_end(tmp_path):
    module = classifier(lr=3e4)  # no number of 16 bits is above 65,504
    with pytest.raises(ValueError, match="precision='bf16-mixed' or '32-true'"):
        trainer(tmp_path, 2, precision="16-true").fit(module, Tasks())
    one = classifier(lr=1e5)
    with pytest.raises(ValueError, match="has NaN or infinity. The fit has ended. Lower `lr`.* Half precision"):
        trainer(tmp_path, 1, precision="16-true", max_steps=1).fit(one, Tasks())


@pytest.mark.parametrize("which", [0, 1])
def test_behavior_cloning_names_rows_too(which, tmp_path):
    module = BehaviorCloning(ActiveDendritePolicy(["a"], hidden_features=[8], dendrite_layers=None), warmup=0)
    batches = [(torch.randn(4, 39), torch.rand(4, 4), torch.zeros(4).long()) for _ in range(4)]
    batches[2][which][1, 3] = NAN
    module.model.fit_normalizer(batches[0][0])
    with pytest.raises(ValueError, match=rf"in update 2 .* `batch\[{which}\]`, rows \[1\]"):
        trainer(tmp_path, 1).fit(module, DataLoader(batches, batch_size=None))
    assert all(p.isfinite().all() for p in module.parameters())


def test_a_normalizer_of_bad_observations_is_refused():
    policy = ActiveDendritePolicy(["a"], hidden_features=[8], dendrite_layers=None)
    policy.fit_normalizer(torch.randn(6, 39))
    before, seen = policy.observation_mean.clone(), torch.randn(6, 39)
    seen[4, 0] = INF
    with pytest.raises(ValueError, match=r"to normalise by, but got NaN or infinity in rows \[4\]"):
        policy.fit_normalizer(seen)
    assert torch.equal(before, policy.observation_mean)


@pytest.mark.parametrize(
    ("column", "name"), [(0, "observation"), (1, "action"), (2, "reward"), (3, "next_observation")]
)
def test_steps_that_are_not_finite_are_not_added(column, name):
    replay = ReplayBuffer(2, 20, observation_size=3, action_size=2)
    steps = [torch.randn(6, 3), torch.rand(6, 2), torch.rand(6), torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])]
    replay.add(*steps)
    before = replay.state_dict()
    steps[column][3] = NAN
    with pytest.raises(ValueError, match=rf"NaN or infinity in {name} of rows \[3\], of task 1. None was added"):
        replay.add(*steps)
    assert same(before, replay.state_dict())


def test_demonstrations_are_finite():
    rows = [torch.randn(4, 39), torch.rand(4, 4), torch.zeros(4).long(), torch.ones(4).bool()]
    rows[1][2, 0] = NAN
    with pytest.raises(ValueError, match=r"Expected `action` to be finite, but got NaN or infinity in rows \[2\]"):
        Demonstrations(("reach-v3",), *rows)


class Spoil(Callback):
    """Writes into a replay buffer, as no simulation may, once updates have begun."""

    def __init__(self, column, value):
        self.column, self.value, self.before = column, value, {}

    def on_train_batch_start(self, trainer, module, *_):
        if trainer.global_step:
            trainer.datamodule.replay.rows[:, self.column] = self.value
            self.before = state_of(module)


@pytest.mark.parametrize(
    ("column", "name", "value"), [(43, "reward", NAN), (44, "next_observation", INF), (43, "", 1e38)]
)
def test_soft_actor_critic_does_not_step(column, name, value, tmp_path):
    pytest.importorskip("metaworld")
    spoil, data = Spoil(column, value), practice()
    module = MultiTaskSAC(small_policy(), batch_size_per_task=8, reward_scale=10.0)
    place = rf"`batch\['{name}'\]`, rows \[\d+, \d+" if name else "are finite. Lower `lr` or `reward_scale`, or give"
    fit = trainer(tmp_path, **data.trainer_kwargs(), callbacks=[spoil])
    with pytest.raises(ValueError, match=place):
        fit.fit(module, data)
    assert spoil.before and same(spoil.before, state_of(module))


def test_a_memory_remembers_no_bad_rows(tmp_path):
    module, data = ReplayClassifier(nn.Linear(8, 3), buffer_size=20), Tasks(NAN)
    with pytest.raises(ValueError, match=r"finite rows to remember, but got NaN or infinity in rows \[5\]"):
        trainer(tmp_path, 2).fit(module, data)
    assert module.reservoir.seen == 64 and module.reservoir.rows[0].isfinite().all()


def test_a_batch_that_no_cluster_takes_is_named(tmp_path):
    module = ContinualClassifier(ActiveDendriteClassifier(8, [16], 3, max_tasks=4, context="clusters"))
    with pytest.raises(ValueError, match=r"^Batch 3 of epoch 1: Expected finite inputs.* in rows \[5\] of the batch"):
        trainer(tmp_path, 2).fit(module, Tasks(NAN))
    assert module.model.context.counts.sum() == 40 + 24 and module.model.context.means.isfinite().all()


@pytest.mark.parametrize("spoilt", ["data", "weights", "nothing"])
def test_nan_is_measured_as_no_class(spoilt, tmp_path):
    net = nn.Linear(8, 3)
    x, y = torch.randn(10, 8), torch.zeros(10).long()  # the class that argmax takes NaN for
    if spoilt == "data":
        x[7, 1] = NAN
    elif spoilt == "weights":
        net.weight.data[0, 0] = NAN
    else:
        net.bias.data[2] = -INF  # of a class that is masked out
    run, loader = trainer(tmp_path, 1, limit_val_batches=1.0), DataLoader(TensorDataset(x, y), batch_size=10)
    if spoilt == "nothing":
        run.validate(ContinualClassifier(net), loader, verbose=False)
        assert run.callback_metrics["val/task_0/acc"] == (net(x).argmax(1) == 0).double().mean()
        return
    with pytest.raises(ValueError, match=rf"for val/task_0, but got NaN in rows \[{7 if spoilt == 'data' else 0}"):
        run.validate(ContinualClassifier(net), loader, verbose=False)
