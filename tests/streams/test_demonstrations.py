"""Demonstrations as batches: as many rows of each task, the same ones however often a run is resumed or shared."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer

from dendrite_zoo.rl import Demonstrations, Disturbance
from dendrite_zoo.rl.collection import collection_config
from dendrite_zoo.streams import DemonstrationMixture, DemonstrationSequence
from dendrite_zoo.streams.loader import DemonstrationLoader

TASKS = ("reach-v3", "push-v3")


def made_up(rows=(30, 50), tasks=TASKS, solved=None):
    """Rows that tell their number and task."""
    task = torch.cat([torch.full((count,), j) for j, count in enumerate(rows)])
    number = torch.arange(len(task)).float()
    return Demonstrations(
        tasks,
        number[:, None].expand(-1, 39).clone(),
        number[:, None].expand(-1, 4).clone() / 100,
        task,
        torch.ones(len(task)).bool() if solved is None else solved,
    )


def loader(**arguments):
    parts = [made_up().of(0), made_up().of(1)]
    return DemonstrationLoader(parts, **{"updates": 5, "batch_size_per_task": (4, 4), "seed": 3, **arguments})


def equal(one, other):
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def test_batches_hold_as_many_rows_of_each_task_and_observation_and_action_belong_together():
    batches = list(loader())
    assert len(batches) == len(loader()) == 5
    for observation, action, task in batches:
        assert task.tolist() == [0] * 4 + [1] * 4
        assert ((observation[:, 0] < 30) == (task == 0)).all()
        torch.testing.assert_close(action[:, 0], observation[:, 0] / 100)
    assert equal(batches, loader()) and not equal(batches, loader(epoch=1)) and not equal(batches, loader(seed=4))


def test_every_row_is_as_likely():
    drawn = torch.cat([observation[:, 0] for observation, _, _ in loader(updates=2000)]).long()
    counts = drawn.bincount(minlength=80).double()
    expected = torch.cat([torch.full((30,), 8000 / 30), torch.full((50,), 8000 / 50)]).double()
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 78 + 4 * (2 * 78) ** 0.5


@pytest.mark.parametrize("taken", range(6))
def test_it_resumes_at_any_batch_once(taken):
    whole, first, second = list(loader()), loader(), loader()
    iterator = iter(first)
    for _ in range(taken):
        next(iterator)
    second.load_state_dict(first.state_dict())
    assert equal(list(second), whole[taken:]) and equal(list(second), whole)
    other = loader(epoch=1)
    other.load_state_dict(first.state_dict())
    assert equal(list(other), list(loader(epoch=1)))


def test_processes_share_every_batch():
    whole = list(loader())
    shares = [list(loader(rank=rank, world_size=2)) for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(batch[0][:, 0].tolist()) == sorted(torch.cat([part[0] for part in parts])[:, 0].tolist())
        assert all((part[2] == 0).sum() == 2 for part in parts)
    with pytest.raises(ValueError, match="Expected `batch_size_per_task` to be a multiple of 3, .* but got 4"):
        loader(world_size=3)


def still(observation, task):
    """An expert that does nothing."""
    return observation[:, :4] * 0


def saved(folder, expert=None, **arguments):
    """As if collected for a DemonstrationMixture of these arguments."""
    configs = {
        "experts": {"episodes_per_task": 200, "disturbance": Disturbance(), **(expert or {})},
        "val": {"episodes_per_task": 5, "split": "val"},
    }
    for name, config in configs.items():
        replace(made_up(**arguments), config=collection_config(**config)).save(folder / f"{name}.safetensors")
    return folder


def test_what_did_not_reach_its_goal_is_left_out(tmp_path):
    solved = torch.arange(80) % 2 == 0
    data = DemonstrationMixture(TASKS, folder=saved(tmp_path, solved=solved), dagger_rounds=0, epochs=1)
    data.setup()
    assert (data.observations[:, 0] % 2 == 0).all() and len(data.observations) == 40
    for task, rows in enumerate((torch.arange(0, 30, 2), torch.arange(30, 80, 2))):  # to validate on each comes once
        [(observation, action, index)] = list(data.val_dataloader()[task])
        assert torch.equal(observation[:, 0], rows.float()) and torch.equal(action[:, 0], rows / 100)
        assert index.tolist() == [task] * len(rows)
    saved(tmp_path, solved=torch.arange(80) >= 30)
    with pytest.raises(ValueError, match="an episode of each task that its expert solved, but got none of reach-v3"):
        DemonstrationMixture(TASKS, folder=tmp_path, dagger_rounds=0, epochs=1).setup()
    with pytest.raises(ValueError, match=r"but got no rows in parts\[1\]"):
        DemonstrationLoader([made_up().of(0), made_up(rows=(30,)).of(1)], updates=1, batch_size_per_task=(1, 1))


def test_a_task_is_not_validated_on_what_its_expert_could_not_do(tmp_path):
    saved(tmp_path)
    held_out = replace(
        made_up(solved=torch.arange(80) >= 30), config=collection_config(episodes_per_task=5, split="val")
    )
    held_out.save(tmp_path / "val.safetensors")
    loaders = DemonstrationMixture(TASKS, folder=tmp_path, dagger_rounds=0, epochs=1).val_dataloader()
    assert [len(list(loader)) for loader in loaders] == [0, 1]


def in_epochs(data):
    """The epochs of a fit of the data, each with the batches that it would have."""
    trainer = Trainer(**data.trainer_kwargs(), logger=False, enable_checkpointing=False, accelerator="cpu")
    data.trainer = trainer
    data.setup("fit")
    for epoch in range(data.max_epochs):
        trainer.fit_loop.epoch_progress.current.processed = epoch
        trainer.fit_loop.epoch_progress.current.completed = epoch
        yield epoch, list(data.train_dataloader())


def test_tasks_follow_one_another(tmp_path):
    data = DemonstrationSequence(TASKS, folder=saved(tmp_path), epochs_per_task=2, updates_per_epoch=3)
    assert data.trainer_kwargs()["max_epochs"] == 4 and data.current_task == 0
    seen = []
    for epoch, batches in in_epochs(data):
        seen.append({*torch.cat([task for _, _, task in batches]).tolist()})
        assert data.current_task == epoch // 2 and data.schedule(epoch) == (epoch % 2, 2)
    assert seen == [{0}, {0}, {1}, {1}]


def test_rows_of_earlier_tasks_are_learned_again(tmp_path):
    names = (*TASKS, "door-open-v3")
    saved(tmp_path, rows=(20, 30, 40), tasks=names)
    options = {"folder": tmp_path, "updates_per_epoch": 60, "batch_size_per_task": 8}
    seen = []
    for epoch, batches in in_epochs(DemonstrationSequence(names, replay_per_task=5, **options)):
        assert all(task.tolist()[:8] == [epoch] * 8 and len(task) == (16 if epoch else 8) for *_, task in batches)
        numbers = torch.cat([observation[8:, 0] for observation, *_ in batches])
        counts = torch.cat([task[8:] for *_, task in batches]).bincount(minlength=3).tolist()
        assert min([480, *counts[:epoch]]) > 480 / max(1, epoch) * 0.8 and not any(counts[epoch:])
        seen.append({*numbers.tolist()})
    assert [len(numbers) for numbers in seen] == [0, 5, 10] and seen[1] < seen[2]  # the same rows for good
    alone = [batches for _, batches in in_epochs(DemonstrationSequence(names, **options))]
    whole = [batches for _, batches in in_epochs(DemonstrationSequence(names, replay_per_task=99, **options))]
    assert equal(alone[0], whole[0]) and len({x for rows, *_ in whole[2] for x in rows[8:, 0].tolist()}) == 50
    with pytest.raises(ValueError, match="Expected `replay_per_task` to be an integer of at least 0, but got -1"):
        DemonstrationSequence(names, replay_per_task=-1)


def test_a_sequence_begins_where_it_is_told_to_and_asks_the_experts_of_those_tasks_alone(tmp_path):
    experts = replace(
        made_up((40,), ("push-v3",)), config=collection_config(episodes_per_task=200, disturbance=Disturbance())
    )
    experts.save(saved(tmp_path) / "experts.safetensors")
    data = DemonstrationSequence(TASKS, first_task=1, folder=tmp_path, epochs_per_task=3, updates_per_epoch=2)
    assert data.trainer_kwargs()["max_epochs"] == 3 and data.current_task == 1
    data.setup()
    assert len(data.observations) == 40 and len(data.val_dataloader()) == 2
    assert [task.unique().tolist() for _, _, task in data.train_dataloader()] == [[1], [1]]
    for first_task in (-1, 2):
        with pytest.raises(
            ValueError, match=f"Expected `first_task` to be an integer from 0 to 1, but got {first_task}"
        ):
            DemonstrationSequence(TASKS, first_task=first_task)


def test_a_file_may_have_further_tasks_and_another_order(tmp_path):
    tasks, shown = ("soccer-v3", "reach-v3", "push-back-v3"), made_up((10, 20, 30), ("a", "b", "c"))
    for name, config in {"experts": {"disturbance": Disturbance()}, "val": {"split": "val"}}.items():
        amount = {"episodes_per_task": 200 if name == "experts" else 5}
        config = collection_config(tasks=tasks, **amount, **config)
        replace(shown, tasks=tasks, config=config).save(tmp_path / f"{name}.safetensors")
    data = DemonstrationMixture(["push-back-v3", "reach-v3"], folder=tmp_path, dagger_rounds=0, epochs=1)
    data.setup()
    for rows in (data.observations[:, 0], torch.cat([next(iter(loader))[0][:, 0] for loader in data.val_dataloader()])):
        assert rows.tolist() == [*range(30, 60), *range(10, 30)]
    assert [set(next(iter(loader))[2].tolist()) for loader in data.val_dataloader()] == [{0}, {1}]
    DemonstrationMixture(["reach-v3"], folder=tmp_path).setup()  # which Meta-World's own expert shows


def test_files_that_were_collected_otherwise_are_refused(tmp_path):
    def setup(**arguments):
        DemonstrationMixture(TASKS, folder=tmp_path, **arguments).setup()

    saved(tmp_path)
    setup()
    with pytest.raises(ValueError, match="experts.* with episodes_per_task=20, but got episodes_per_task=200[.] Give"):
        setup(episodes_per_task=20)
    with pytest.raises(ValueError, match="experts.* collected with seed=1, but got seed=0[.]"):
        setup(seed=1)
    with pytest.raises(ValueError, match="val.* collected with episodes_per_task=2, but got episodes_per_task=5"):
        setup(val_episodes=2)
    saved(tmp_path, expert={"disturbance": None})
    with pytest.raises(ValueError, match="with disturbance={'noise': 0.2.*, but got disturbance=None"):
        setup()
    saved(tmp_path)
    with pytest.raises(ValueError, match="experts.* with expert='.*still', but got expert=None[.] Give the arguments"):
        setup(expert=still)
    tasks = ("reach-v3", "soccer-v3")
    saved(tmp_path, tasks=tasks)  # as if Meta-World's own expert had shown both
    with pytest.raises(ValueError, match="with expert={'soccer-v3': 'DragExpert.low=0.02, .* but got expert=None"):
        DemonstrationMixture(tasks, folder=tmp_path).setup()
    saved(tmp_path, expert={"expert": still})
    with pytest.raises(ValueError, match="with expert=None, but got expert='.*still'"):
        setup()
    saved(tmp_path)
    made_up().save(tmp_path / "experts.safetensors")
    with pytest.warns(UserWarning, match="experts.safetensors does not say how it was collected.*episodes_per_task=20"):
        setup(episodes_per_task=20)


def test_errors_say_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="fewer than the 2 epochs, but got 2[.] Give epochs=3, or fewer rounds[.]"):
        DemonstrationMixture(TASKS, dagger_rounds=2, epochs=2)
    with pytest.raises(ValueError, match="Expected `batch_size_per_task` to be an integer of at least 1, but got 0[.]"):
        DemonstrationMixture(TASKS, batch_size_per_task=0)
    for times in (0, -1, 1.5):
        with pytest.raises(ValueError, match=rf"task_weights\['push-v3'\].* at least 1, but got {times}"):
            DemonstrationMixture(TASKS, task_weights={"push-v3": times})
    with pytest.raises(ValueError, match="Did you mean 'reach-v3'"):
        DemonstrationMixture(["reach"])
    with pytest.raises(ValueError, match="demonstrations of sweep-v3, but got those of reach-v3, push-v3. The file is"):
        DemonstrationMixture(["push-v3", "sweep-v3"], folder=saved(tmp_path)).setup()
    data = DemonstrationMixture(TASKS, folder=tmp_path)
    data.trainer = Trainer(max_epochs=7, logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(ValueError, match="Trainer of DemonstrationMixture to have max_epochs=5, but got 7"):
        data.setup("fit")
