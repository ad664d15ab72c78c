"""BehaviorCloning: the expert's action, a falling learning rate, a moving average, and resuming to the bit."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, IterableDataset

from dendrite_zoo.callbacks import SuccessLogger
from dendrite_zoo.cli.run_logger import RunLogger
from dendrite_zoo.hub.publish.upload import opened
from dendrite_zoo.lightning_modules import BehaviorCloning
from dendrite_zoo.lightning_modules.behavior_cloning import imitation_loss
from dendrite_zoo.models import ActiveDendritePolicy, load
from dendrite_zoo.rl import Demonstrations, evaluate_policy
from dendrite_zoo.streams import DemonstrationMixture, DemonstrationSequence

TASK = "reach-v3"


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """A file of demonstrations that all tests share."""
    pytest.importorskip("metaworld")
    file = tmp_path_factory.mktemp("demonstrations") / "experts.safetensors"
    data(file, file.parent).setup()
    return file


def data(file, folder, **arguments):
    options = {"episodes_per_task": 20, "dagger_rounds": 0, "epochs": 1, "updates_per_epoch": 20, "num_processes": 0}
    options |= {"val_episodes": 2, "dagger_episodes": 2}
    return DemonstrationMixture(TASK, demonstrations=file, folder=folder, **{**options, **arguments})


def module(**arguments):
    torch.manual_seed(0)
    policy = ActiveDendritePolicy([TASK], hidden_features=[64, 64], weight_density=1.0)
    return BehaviorCloning(policy, **{"warmup": 4, **arguments})


def fit(module, stream, *callbacks, ckpt_path=None, logger=False):
    quiet = {
        "logger": logger,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    checkpoints = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    trainer = Trainer(**stream.trainer_kwargs(), **quiet, enable_checkpointing=checkpoints, callbacks=list(callbacks))
    trainer.fit(module, stream, ckpt_path=ckpt_path, weights_only=True)
    return trainer


class Watch(Callback):
    """Notes learning rate and weights at each step."""

    def __init__(self):
        self.lr, self.weights = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.lr.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.weights.append([p.detach().clone() for p in pl_module.model.parameters()])


class Kill(Callback):
    """Ends a run before a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def test_loss_by_hand():
    mean = torch.tensor([[0.0, math.atanh(0.5)]])
    action = torch.tensor([[1.0, -0.5]])
    assert float(imitation_loss(mean, action)) == pytest.approx((1 + 1) / 2)
    assert float(imitation_loss(mean, action, "mse")) == pytest.approx((1 + 1) / 2)
    assert float(imitation_loss(mean, torch.tensor([[0.5, 0.5]]), "mse")) == pytest.approx(0.125)


def test_learning_rate_and_average_are_those_of_a_naive_loop(experts):
    watch, bc = Watch(), module(lr=1e-3, ema_decay=0.9)
    start = [p.detach().clone() for p in bc.model.parameters()]
    stream = data(experts, experts.parent, epochs=2)
    fit(bc, stream, watch)
    assert watch.lr == pytest.approx(
        [1e-3 * min(1, (n + 1) / 4) * 0.5 * (1 + math.cos(math.pi * n / 40)) for n in range(40)]
    )
    average = start
    for n, weights in enumerate(watch.weights):
        kept = min(0.9, (1 + n) / (10 + n))
        average = [kept * a + (1 - kept) * w for a, w in zip(average, weights, strict=True)]
    for expected, parameter in zip(average, bc.model.parameters(), strict=True):
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(bc.model.observation_mean, stream.observations.mean(0))  # and it is normalised


def test_the_deviation_is_small_and_the_mean_what_it_would_be_without(experts, tmp_path):
    """It is set where a fit begins, so that every checkpoint has it; the gradient of the mean knows nothing of it."""
    keep = ModelCheckpoint(dirpath=tmp_path, save_last=True, every_n_train_steps=7, save_top_k=0)
    bc, other, seen, task = module(), module(), torch.randn(50, 39), torch.zeros(50).long()
    before = other.model.act_batch(seen, task)
    other.model.set_std(0.1)
    assert (other.model.act_batch(seen, task) == before).all()
    fit(bc, data(experts, tmp_path), keep)
    for policy in (bc.model, BehaviorCloning.load_from_checkpoint(tmp_path / "last.ckpt").model):
        torch.testing.assert_close(policy(seen, task)[1].exp(), torch.full((50, 4), 0.1))
        noise = policy.act_batch(seen, task, deterministic=False) - policy.act_batch(seen, task)
        assert 0 < abs(noise).max() < 0.5


def test_without_a_bias_the_deviation_is_in_the_middle_of_its_range(experts, tmp_path):
    bound = {"log_std_range": [-4.0, 2.0], "log_std_bound": "tanh"}
    policy = ActiveDendritePolicy([TASK], hidden_features=[8, 8], output_bias=False, **bound)
    with pytest.warns(UserWarning, match="output_bias=False: they have 0.37[.] Act deterministically"):
        fit(BehaviorCloning(policy, warmup=1), data(experts, tmp_path, updates_per_epoch=2))
    log_std = policy(torch.randn(50, 39), torch.zeros(50).long())[1]
    torch.testing.assert_close(log_std, torch.full((50, 4), -1.0))


class Endless(IterableDataset):
    """Rows of which nobody knows how many there are."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


@pytest.mark.parametrize(
    ("limits", "endless", "total"),
    [
        ({"max_steps": 12}, False, 12),  # two passes and two steps
        ({"max_epochs": 3}, False, 15),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, False, 9),
        ({"max_epochs": 3, "max_steps": 6}, True, 6),
        ({"max_epochs": 2}, True, math.inf),  # it does not fall where nobody knows when it ends
    ],
)
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_over_a_plain_loader_the_learning_rate_falls_once(limits, endless, total):
    rows = [(torch.rand(39), torch.rand(4), torch.tensor(0)) for _ in range(10)]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    watch, bc = Watch(), module(lr=1e-3)
    bc.model.fit_normalizer(torch.stack([row[0] for row in rows]))
    trainer = Trainer(**limits, **quiet, enable_checkpointing=False, callbacks=[watch])
    trainer.fit(bc, DataLoader(Endless(rows) if endless else rows, batch_size=2), DataLoader(rows, batch_size=10))
    assert watch.lr == pytest.approx(
        [1e-3 * min(1, (n + 1) / 4) * 0.5 * (1 + math.cos(math.pi * n / total)) for n in range(trainer.global_step)]
    )
    assert trainer.global_step == (total if total < math.inf else 10)


def test_it_learns_to_reach(experts):
    bc = module(lr=3e-3, ema_decay=0.99)
    options = {"split": "val", "num_goals": 8, "num_processes": 0, "stop_at_success": True, "max_steps": 200}
    before = evaluate_policy(bc.act_batch, TASK, **options).mean
    fit(bc, data(experts, experts.parent, epochs=2, dagger_rounds=1, updates_per_epoch=200))
    after = evaluate_policy(bc.model.eval().act_batch, TASK, **options).mean
    assert before <= 0.25 and after >= 0.5


def test_killed_anywhere_it_resumes_to_the_bit_rounds_of_dagger_included(experts, tmp_path):
    options = {"epochs": 3, "dagger_rounds": 2, "updates_per_epoch": 4, "val_episodes": 1, "dagger_episodes": 1}
    whole = module()
    fit(whole, data(experts, tmp_path / "whole", **options))
    expected = torch.cat([p.flatten() for p in whole.model.parameters()])
    untrained = torch.cat([p.flatten() for p in module().model.parameters()])
    assert not torch.equal(expected, untrained)

    for step in (3, 4, 6, 11):  # within an epoch, at its end, after a round, before the last step
        folder = tmp_path / f"killed-{step}"
        keep, keep_again = (
            ModelCheckpoint(dirpath=folder, save_last=True, every_n_train_steps=1, save_top_k=0) for _ in range(2)
        )
        with pytest.raises(BaseException):  # noqa: B017 - Lightning turns it into an exit
            fit(module(), data(experts, folder, **options), keep, Kill(step))
        torch.manual_seed(step)
        again = BehaviorCloning(ActiveDendritePolicy([TASK], hidden_features=[64, 64], weight_density=1.0), warmup=4)
        fit(again, data(experts, folder, **options), keep_again, ckpt_path=folder / "last.ckpt")
        assert torch.equal(torch.cat([p.flatten() for p in again.model.parameters()]), expected), step


def test_resumed_it_finds_its_rounds_of_dagger_where_the_run_began(experts, tmp_path):
    """Lightning's loggers give every fit a folder of its own."""

    def go(name, *callbacks, logger=None, **options):
        few = {"val_episodes": 1, "dagger_episodes": 1, "updates_per_epoch": 4}
        bc, stream = module(), data(experts, None, epochs=3, dagger_rounds=2, **few)
        keep = ModelCheckpoint(dirpath=tmp_path / name, save_last=True, every_n_train_steps=1, save_top_k=0)
        fit(bc, stream, keep, *callbacks, logger=logger or CSVLogger(tmp_path, name), **options)
        return weights(bc.model)

    expected = go("whole")
    with pytest.raises(BaseException):  # noqa: B017 - Lightning turns it into an exit
        go("killed", Kill(6))
    checkpoint = torch.load(path := tmp_path / "killed" / "last.ckpt", weights_only=True)
    assert torch.equal(go("killed", ckpt_path=path), expected)
    found = {str(file.relative_to(tmp_path / "killed")) for file in tmp_path.glob("killed/**/*.safetensors")}
    assert found == {f"version_0/demonstrations/{name}.safetensors" for name in ("val", "round-1", "round-2")}

    torch.save(checkpoint, path)
    (tmp_path / "killed" / "version_0" / "demonstrations" / "round-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="Expected .*version_0.*round-1.* no such file. Restore it"):
        go("killed", ckpt_path=path)

    del checkpoint[
        "DemonstrationMixture"
    ]  # of an earlier version, which looked where the logger of a run folder writes
    torch.save(checkpoint, path)
    assert torch.equal(go("killed", ckpt_path=path, logger=RunLogger(tmp_path / "whole" / "version_0")), expected)


def test_a_fit_that_starts_anew_takes_no_rounds_of_another(experts, tmp_path):
    options = {"epochs": 2, "dagger_rounds": 1, "updates_per_epoch": 1}
    fit(module(warmup=1), data(experts, tmp_path / "one", **options))
    with pytest.raises(FileExistsError, match="a folder without rounds .* got .*one/round-1.* of an earlier fit"):
        fit(module(warmup=1), data(experts, tmp_path / "one", **options))

    stream, rows = data(experts, None, **options), []
    for _ in range(2):
        fit(module(warmup=1), stream, logger=CSVLogger(tmp_path, "logs"))
        rows.append(len(stream.observations))
    assert rows[0] == rows[1] and len([*tmp_path.glob("logs/version_*/demonstrations/round-1.safetensors")]) == 2


def test_in_a_sequence_each_task_has_rounds_of_its_own(tmp_path):
    pytest.importorskip("metaworld")
    tasks = ("drawer-close-v3", TASK)
    stream = DemonstrationSequence(
        tasks,
        epochs_per_task=2,
        dagger_rounds=1,
        episodes_per_task=1,
        dagger_episodes=1,
        val_episodes=1,
        updates_per_epoch=2,
        folder=tmp_path,
        num_processes=0,
    )
    bc = BehaviorCloning(ActiveDendritePolicy(tasks, hidden_features=[16, 16]), warmup=1)
    trainer = fit(bc, stream)
    assert trainer.global_step == 2 * 2 * 2
    assert bc.parameters_by_task() == [weights(bc.model).numel()]  # of the second task, which trained all of them
    for task, name in enumerate(tasks):
        shown, played = (
            Demonstrations.load(tmp_path / file) for file in ("experts.safetensors", f"task-{task}-round-1.safetensors")
        )
        assert played.tasks == (name,)
        rows = len(shown.of(task)) + int(played.solved.sum())
        assert len(stream._parts[task]) == rows and (stream._parts[task].task == task).all()


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


@pytest.mark.parametrize("where", ["training", "validation"])
def test_the_model_of_a_checkpoint_is_the_average_and_the_trained_weights_stand_beside(experts, tmp_path, where):
    """ModelCheckpoint saves in the validation by default, where the averaged weights stand in the model."""
    steps = {"every_n_train_steps": 20} if where == "training" else {}
    keep, watch = ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0, **steps), Watch()
    whole = module(ema_decay=0.99)
    fit(whole, data(experts, tmp_path), keep, watch)
    expected = weights(whole.model)
    assert torch.equal(weights(BehaviorCloning.load_from_checkpoint(tmp_path / "last.ckpt").model), expected)
    with opened(tmp_path / "last.ckpt") as published:
        assert torch.equal(weights(load(published)), expected)
    trained = torch.load(tmp_path / "last.ckpt", weights_only=True)["trained"]
    assert [*trained] == [f"model.{name}" for name, _ in whole.model.named_parameters()]
    assert all(map(torch.equal, trained.values(), watch.weights[-1])) and not torch.equal(
        expected, torch.cat([tensor.flatten() for tensor in watch.weights[-1]])
    )


def test_weights_that_are_loaded_are_acted_with_in_a_fit_too(experts):
    bc, other, seen = module(), module(), torch.rand(5, 39)
    torch.nn.init.normal_(other.model.mlp.output.weight)
    expected = other.model.act_batch(seen, torch.zeros(5).long())

    class Load(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 5:
                pl_module.load_state_dict(other.state_dict())
                self.acted = pl_module.act_batch(seen, torch.zeros(5).long())

    bc.load_state_dict(other.state_dict())
    assert (bc.act_batch(seen, torch.zeros(5).long()) == expected).all()
    other.model.fit_normalizer(seen)
    expected = other.model.act_batch(seen, torch.zeros(5).long())
    fit(bc, data(experts, experts.parent), load_other := Load())
    assert (load_other.acted == expected).all()


def test_when_a_fit_ends_callbacks_meet_the_average(experts):
    """Such as one that publishes the model."""

    class Take(Callback):
        def on_fit_end(self, trainer, pl_module):
            self.weights = weights(pl_module.model)

    bc, take = module(), Take()
    fit(bc, data(experts, experts.parent), take)
    assert torch.equal(take.weights, weights(bc.model))


def test_a_validation_that_breaks_off_leaves_the_trained_weights_in_the_model(experts, tmp_path):
    class Break(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            self.shown = weights(pl_module.model)
            raise RuntimeError("broken off")

    keep = ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0, save_on_exception=True)
    bc, watch, broken = module(ema_decay=0.99), Watch(), Break()
    with pytest.raises(RuntimeError, match="broken off"):
        fit(bc, data(experts, experts.parent), keep, watch, broken)
    trained = torch.cat([tensor.flatten() for tensor in watch.weights[-1]])
    assert torch.equal(weights(bc.model), trained) and not torch.equal(broken.shown, trained)
    with bc.averaged():
        assert torch.equal(weights(bc.model), broken.shown)
    saved = BehaviorCloning.load_from_checkpoint(next(tmp_path.glob("*.ckpt")))
    assert torch.equal(weights(saved.model), broken.shown)

    bc.average.show()  # as where no callback hears of it
    anew = module(ema_decay=0.99)
    anew.load_state_dict({**bc.state_dict(), **dict(zip(bc.average.aside, watch.weights[-1], strict=True))})
    fit(bc.train(), data(experts, experts.parent))
    fit(anew, data(experts, experts.parent))
    assert torch.equal(weights(bc.model), weights(anew.model))


def test_success_is_logged_every_so_many_steps(experts):
    log = SuccessLogger(every_n_steps=10, num_goals=2, max_steps=5, num_processes=0)
    trainer = fit(module(), data(experts, experts.parent), log)
    assert set(trainer.callback_metrics) >= {f"success/{TASK}", "success/mean", "train/loss", "val/task_0/loss"}
    assert log.report.first.shape == (1, 2) and log.report.split == "val"


def test_the_average_is_moved_in_once_for_all_actions_of_a_collection_and_of_an_evaluation(experts, tmp_path):
    bc = module(ema_decay=0.99)
    act, versions = bc.model.act_batch, []

    def watched(*arguments):
        assert bc.average.is_shown
        versions.append(next(bc.model.parameters())._version)
        return act(*arguments)

    bc.model.act_batch = watched
    log = SuccessLogger(every_n_steps=20, num_goals=2, max_steps=5, num_processes=0)
    fit(bc, data(experts, tmp_path, epochs=2, dagger_rounds=1), log)
    assert len(versions) > 15 and len(set(versions)) == 3  # after 20 updates, in the round, and after 40


def test_a_module_is_evaluated_as_its_policy_is():
    pytest.importorskip("metaworld")
    policy = ActiveDendritePolicy(["push-v3", TASK], hidden_features=[8, 8])
    options = {"num_goals": 2, "num_processes": 0, "max_steps": 3}
    report = evaluate_policy(BehaviorCloning(policy), **options)
    assert report.tasks == policy.tasks
    assert evaluate_policy(BehaviorCloning(policy), [TASK], **options).tasks == (TASK,)
    with pytest.raises(ValueError, match="Expected `tasks` to be some of the policy.s, .* but got door-open-v3"):
        evaluate_policy(BehaviorCloning(policy), ["door-open-v3"], **options)


def test_errors_name_the_argument_and_the_remedy(experts):
    with pytest.raises(ValueError, match="Expected `loss` to be one of 'l1', 'mse', but got 'huber'"):
        module(loss="huber")
    with pytest.raises(ValueError, match="Expected `ema_decay` to be a number from 0 to below 1, but got 1"):
        module(ema_decay=1)
    with pytest.raises(ValueError, match="Expected `warmup` to be an integer of at least 0, but got -1"):
        module(warmup=-1)
    with pytest.raises(ValueError, match="Expected `lr` to be a number above 0, but got -1"):
        module(lr=-1)
    with pytest.raises(TypeError, match="Expected `model` to be of type ActiveDendritePolicy, .* but got ActiveDend"):
        BehaviorCloning("permuted-digits")
    other = BehaviorCloning(ActiveDendritePolicy(["push-v3"], hidden_features=[8, 8]))
    with pytest.raises(
        ValueError, match=r"tasks of the policy, which are push-v3, but got 'reach-v3'. Load the policy with tasks=\["
    ):
        fit(other, data(experts, experts.parent))
    with pytest.raises(ValueError, match="does not define `act_batch"):
        SuccessLogger(tasks=TASK).setup(Trainer(logger=False, accelerator="cpu"), LightningModule(), "fit")
    with pytest.raises(ValueError, match="Expected `every_n_steps` to be an integer of at least 1, but got 0"):
        SuccessLogger(every_n_steps=0)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:.*does not have many workers")
@pytest.mark.parametrize(("warmup", "warns"), [(8, True), (200, True), (7, False), (1, False)])
def test_a_warmup_longer_than_the_fit_is_warned_of(warmup, warns, tmp_path):
    rows = [(torch.randn(4, 39), torch.rand(4, 4), torch.zeros(4).long()) for _ in range(4)]
    bc = BehaviorCloning(ActiveDendritePolicy(["reach-v3"], hidden_features=[8, 8]), warmup=warmup)
    bc.model.fit_normalizer(rows[0][0])
    run = Trainer(
        default_root_dir=tmp_path,
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    said = f"shorter than the 8 updates learned at one stretch, but got {warmup}: the learning rate never"
    with pytest.warns(match=said) if warns else nullcontext():
        run.fit(bc, DataLoader(rows, batch_size=None))
