"""Tasks learned one after another by trial and error, with steps of earlier tasks kept and learned again."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from dendrite_zoo.lightning_modules import MultiTaskSAC
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import TaskSpec
from dendrite_zoo.streams import OnlineTasks
from tests.lightning_modules.practice import Crash, CrashAfter, EveryRound
from tests.rl.worlds import Ledge

pytest.importorskip("gymnasium")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

TASKS = [TaskSpec(f"wind {i}", partial(Ledge, wind=0.1 * i), success="near") for i in range(3)]
ROUNDS = {"env_steps": 120, "epochs": 6, "steps_per_round": 5, "updates_per_round": 2, "warmup_steps": 5}


def data(**options):
    return OnlineTasks(TASKS, **{"order": "sequential", "environments": {"num_processes": 0}, **ROUNDS, **options})


def module(**options):
    torch.manual_seed(0)
    policy = ActiveDendritePolicy(TASKS, hidden_features=[16, 16], num_segments=2, observation_size=3, action_size=2)
    return MultiTaskSAC(policy, **{"batch_size_per_task": 8, "lr": 1e-2, **options})


def fit(module, stream, *callbacks, ckpt_path=None):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    saves = any(isinstance(callback, EveryRound) for callback in callbacks)
    options = {**stream.trainer_kwargs(), **quiet, "accelerator": "cpu", "devices": 1}
    Trainer(**options, callbacks=list(callbacks), enable_checkpointing=saves).fit(module, stream, ckpt_path=ckpt_path)


class Kept(Callback):
    """Notes the rows of each task's buffer at the end, what is sampled of each, and the entropy coefficients."""

    def __init__(self):
        self.rows, self.scales, self.sampled, self.alphas = {}, {}, [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        stream = trainer.datamodule
        self.rows[stream.current_task] = stream.replay.steps(0, 1000)
        self.scales[stream.current_task] = float(stream.practice.reward_rms) or 1.0
        self.sampled.append((stream.current_task, stream.sample(100)))
        self.alphas.append((stream.current_task, pl_module.log_alpha.tolist()))


@pytest.mark.parametrize("normalize_rewards", [False, True])
def test_a_batch_has_as_many_steps_of_each_earlier_task_of_the_latest_that_were_kept(normalize_rewards):
    kept = Kept()
    fit(module(), data(replay_per_task=7, normalize_rewards=normalize_rewards), kept)
    assert {task for task, _ in kept.sampled} == {0, 1, 2}
    assert all((scale != 1.0) == normalize_rewards for scale in kept.scales.values())
    for current, batch in kept.sampled:
        assert batch.task.tolist() == [task for task in range(current + 1) for _ in range(100)]
        for task in range(current):
            seen, action, reward, *_ = (column[-7:] for column in kept.rows[task])
            mine = batch.task == task
            at = (batch.observation[mine][:, None] == seen).all(2).int().argmax(1)
            assert torch.equal(batch.observation[mine], seen[at]) and torch.equal(batch.action[mine], action[at])
            torch.testing.assert_close(batch.reward[mine], (reward / kept.scales[task])[at])
            assert len(at.unique()) == 7


@pytest.mark.parametrize("replay_per_task", [0, 7])
def test_earlier_tasks_are_learned_on_where_their_steps_were_kept(replay_per_task):
    kept = Kept()
    fit(module(), data(replay_per_task=replay_per_task), kept)
    first = [alphas[0] for task, alphas in kept.alphas if task > 0]
    assert (len(set(first)) > 1) == (replay_per_task > 0)


@pytest.mark.parametrize("crash", [8, 11])
def test_a_run_that_was_killed_goes_on_to_the_same_weights(crash, tmp_path):
    whole, resumed, last = module(n_step=3), module(n_step=3), tmp_path / "last.ckpt"
    fit(whole, data(replay_per_task=7))
    with pytest.raises(Crash):
        fit(module(n_step=3), data(replay_per_task=7), EveryRound(last), CrashAfter(crash))
    fit(resumed, data(replay_per_task=7), ckpt_path=last)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_run_that_kept_nothing_does_not_go_on_with_what_it_kept(tmp_path):
    last = tmp_path / "last.ckpt"
    with pytest.raises(Crash):
        fit(module(), data(), EveryRound(last), CrashAfter(11))
    with pytest.raises(ValueError, match="steps of earlier tasks, but got one of a run with replay_per_task=0"):
        fit(module(), data(replay_per_task=7), ckpt_path=last)


def test_where_nothing_could_be_kept_it_is_refused():
    with pytest.raises(ValueError, match="`replay_per_task` to be 0 with order='mixed'"):
        data(order="mixed", replay_per_task=5)
    with pytest.raises(ValueError, match="`save_replay` to be True with a replay_per_task"):
        data(save_replay=False, replay_per_task=5)
    with pytest.raises(ValueError, match="replay_per_task"):
        data(replay_per_task=-1)
