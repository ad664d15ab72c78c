"""A model is published while it is trained, and training never notices what the Hub does."""

import json
import logging
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard
from lightning.pytorch import Callback
from torch import nn

from dendrite_zoo.callbacks import ForgettingLogger, RunRecorder
from dendrite_zoo.callbacks.publisher import HubPublisher
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier, ActiveDendriteMLP
from dendrite_zoo.streams import PermutedTasks
from tests.callbacks.strangers import ReluNet, Tasks, trainer
from tests.hub.conftest import alice, hub, world  # noqa: F401

TRAIN = """
import time
from lightning.pytorch import Trainer, seed_everything
from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from dendrite_zoo.callbacks.publisher import HubPublisher
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import PermutedTasks

seed_everything(7)
stream = PermutedTasks("digits", num_tasks=2, epochs_per_task=1)
publisher = HubPublisher("alice/digits", $every, folder=$folder, wait=$wait)
trainer = Trainer(
    **stream.trainer_kwargs(), accelerator="cpu", logger=False, default_root_dir=$folder,
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    callbacks=[publisher, ForgettingLogger(verbose=False), SparsityLogger()],
)
model = ActiveDendriteClassifier(64, [16], 10, max_tasks=2)
began = time.monotonic()
trainer.fit(ContinualClassifier(model), stream)
model.save_pretrained($final)
result = [[r.tag for r in publisher.releases], time.monotonic() - began, trainer.state.finished]
"""


@pytest.fixture
def run(alice, tmp_path):  # noqa: F811
    def train(every="task_end", wait=60.0):
        return alice(TRAIN, every=every, wait=wait, folder=tmp_path / "run", final=tmp_path / "final")

    return train


def head(hub):  # noqa: F811
    held = hub.repos["models/alice/digits"]
    return held.commits[held.branches["main"]]


def test_each_task_is_released(hub, run, tmp_path):  # noqa: F811
    answer = run()
    assert answer.error is None, answer.trace
    assert answer.result[0] == ["v1", "v2"]
    repo = hub.repos["models/alice/digits"]
    first, second = (repo.commits[repo.tags[tag]] for tag in ("v1", "v2"))
    assert first["model.safetensors"] != second["model.safetensors"]
    # The first release is the model before it has seen anything of the second task.
    for name, files in (("first", first), ("second", second)):
        (tmp_path / name).mkdir()
        for path in ("config.json", "model.safetensors"):
            (tmp_path / name / path).write_bytes(files[path])
    assert ActiveDendriteClassifier.from_pretrained(tmp_path / "first").num_tasks == 1
    assert ActiveDendriteClassifier.from_pretrained(tmp_path / "second").num_tasks == 2
    assert second["model.safetensors"] == (tmp_path / "final/model.safetensors").read_bytes()
    (record,) = json.loads(second["results.json"])
    assert record["benchmark"] == "permuted-digits" and record["seeds"] == [7] and record["num_tasks"] == 2
    card = second["README.md"].decode()
    assert ModelCard(card).data.eval_results[0].metric_value == pytest.approx(record["average_accuracy"])
    assert re.search(r"\| `mlp\.\S+` \|.*0\.8", card), "activation sparsity stands in the card"
    assert not list((tmp_path / "run").glob("step-*")), "what was sent is not kept"
    assert not any(b"_secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_training_survives_a_hub_that_fails(hub, alice, run, tmp_path):  # noqa: F811
    hub.fail("commit", 503, 1000)
    answer = run(every="fit_end")
    assert answer.error is None, answer.trace
    assert answer.result[0] == [] and answer.result[2]
    assert "alice/digits is not published: alice/digits: the Hub answers with HTTP 503" in answer.said
    folder, repo = re.search(r"To try again: dendrite-zoo publish (\S+) --repo (\S+)", answer.said).groups()
    hub.faults.clear()
    again = alice("result = publishing.publish($folder, $repo).tag", folder=folder, repo=repo)
    assert again.result == "v1", again.error
    assert head(hub)["model.safetensors"] == (tmp_path / "final/model.safetensors").read_bytes()


SENT = """
import gc, time
from dendrite_zoo.callbacks.publisher import HubPublisher
until = time.monotonic() + 600
while any(each._unsent for each in gc.get_objects() if isinstance(each, HubPublisher)):
    assert time.monotonic() < until
    time.sleep(0.01)
"""


def test_training_does_not_wait_for_a_hub_that_is_silent(hub, alice, run, tmp_path):  # noqa: F811
    hub.fail("create", "hang", 1000)
    answer = run(wait=0.0)
    assert answer.result[0] == [] and answer.result[2]
    assert "it could not be sent within 0 s" in answer.said
    assert len(list(Path(tmp_path / "run").glob("step-*/model.safetensors"))) == 2
    hub.faults.clear()
    assert alice(SENT).error is None, "its thread would speak to the hub of the next test"


def test_what_cannot_be_published_is_said_before_training():
    from lightning.pytorch import LightningModule, Trainer

    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    with pytest.raises(ValueError, match="neither it nor its .model is a dendrite_zoo.hub.HubModel"):
        HubPublisher("alice/digits").setup(trainer, LightningModule(), "fit")
    with pytest.raises(ValueError, match="Expected `every` to be one of .fit_end., .task_end., but got 'epoch'"):
        HubPublisher("alice/digits", every="epoch")
    with pytest.raises(ValueError, match="expected a repo as 'org/name', .* but got 'digits'"):
        HubPublisher("digits")
    with pytest.raises(
        ValueError,
        match="Expected `context_at_test` to be one of 'inferred', 'given', 'none', 'constant', but got 'guessed'",
    ):
        HubPublisher("alice/digits", context_at_test="guessed")
    module = LightningModule()
    module.model = ActiveDendriteClassifier(4, [4], 2, max_tasks=1)
    with pytest.raises(ValueError, match="HubPublisher needs the index of the task"):
        HubPublisher("alice/digits", every="task_end").setup(trainer, module, "fit")


@pytest.fixture
def unsent(monkeypatch):
    """There is no Hub, so that what would be sent stays in its folder; gives the records in it, by step."""

    def fail(*args, **kwargs):
        raise OSError("no Hub here")

    monkeypatch.setattr("dendrite_zoo.hub.publish.upload.publish", fail)

    def records(folder):
        saved = sorted(Path(folder).glob("step-*"), key=lambda path: int(path.name[len("step-") :]))
        held = [path / "results.json" for path in saved]
        return [json.loads(path.read_text())[0] if path.exists() else None for path in held]

    return records


def epoch(trainer):
    return trainer.current_epoch


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_record_holds_every_task_that_was_learned(tmp_path, unsent):
    stream = PermutedTasks("digits", num_tasks=4, eval_at=[3])
    log = ForgettingLogger(verbose=False, folder=tmp_path, pictures=False)
    publisher = HubPublisher("alice/digits", every="task_end", folder=tmp_path)
    model = ActiveDendriteClassifier(64, [16], 10, max_tasks=4)
    run = trainer(tmp_path, [publisher, log], epochs=4, limit_train_batches=1)
    run.fit(ContinualClassifier(model), stream)
    first, second, third, last = unsent(tmp_path)
    assert first["num_tasks"] == 1 and last["num_tasks"] == 4
    assert second is None and third is None, "task 0 was not measured after them"
    torch.testing.assert_close(torch.tensor(last["task_accuracies"]), log.matrix[3])
    assert last["parameters"] == sum(p.numel() for p in model.parameters())
    assert first["context_at_test"] == last["context_at_test"] == "inferred"


class Given(ReluNet):
    """A stranger's module that gives the task to one of our models, and has parameters of its own."""

    def __init__(self, **hparams):
        super().__init__()
        self.save_hyperparameters(hparams)
        self.model = ActiveDendriteClassifier(6, [16], 3, max_tasks=3, context="one-hot")

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.model(batch[0], task=self.trainer.current_epoch), batch[1])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val/acc", (self.model(batch[0], task=dataloader_idx).argmax(1) == batch[1]).float().mean())


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(
    ("module", "argument", "expected"),
    [
        (Given, None, None),
        (Given, "given", "given"),
        (lambda: Given(context_at_test="constant"), None, "constant"),
        (lambda: Given(context_at_test="guessed"), None, None),
        (lambda: ContinualClassifier(ActiveDendriteMLP(6, [8], 3, context_dim=2, num_segments=0)), None, "none"),
    ],
    ids=["unknown", "argument", "hparams", "no such", "no context"],
)
def test_where_the_context_came_from(tmp_path, unsent, caplog, module, argument, expected):
    class Tell(Tasks):
        @property
        def current_task(self):
            return self.trainer.current_epoch

    module = module()
    log = ForgettingLogger(verbose=False, folder=tmp_path, pictures=False)
    publisher = HubPublisher("alice/digits", folder=tmp_path, context_at_test=argument)
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, [publisher, log]).fit(module, Tell())
    (record,) = unsent(tmp_path)
    said = [r.getMessage() for r in caplog.records if "no result record" in r.getMessage()]
    if expected is None:
        assert record is None and len(said) == 1
        assert (
            "Given does not say in hparams['context_at_test']" in said[0] and "Pass it as context_at_test=" in said[0]
        )
    else:
        assert record["context_at_test"] == expected and not said
        assert record["parameters"] == sum(p.numel() for p in module.model.parameters())


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_each_fit_saves_into_its_own_folder(tmp_path, unsent):
    publisher = HubPublisher("alice/digits")
    for name in ("first", "second"):
        trainer(tmp_path / name, [publisher], epochs=1).fit(Given(), Tasks())
        assert len(unsent(tmp_path / name / "hub")) == 1
    assert publisher.folder is None


AVERAGED = TRAIN.replace(
    "model = ActiveDendriteClassifier",
    """
import contextlib, torch
class Averaging(ContinualClassifier):
    @contextlib.contextmanager
    def averaged(self):
        trained = self.model.mlp.output.bias.detach().clone()
        with torch.no_grad():
            self.model.mlp.output.bias.fill_(7)
            yield
            self.model.mlp.output.bias.copy_(trained)
model = ActiveDendriteClassifier""",
    1,
).replace("ContinualClassifier(model)", "Averaging(model)")


def test_a_module_that_averages_its_weights_releases_the_average(hub, alice, tmp_path):  # noqa: F811
    answer = alice(AVERAGED, every="task_end", wait=60.0, folder=tmp_path / "run", final=tmp_path / "final")
    assert answer.error is None, answer.trace
    (tmp_path / "head").mkdir()
    for path in ("config.json", "model.safetensors"):
        (tmp_path / "head" / path).write_bytes(head(hub)[path])
    released = ActiveDendriteClassifier.from_pretrained(tmp_path / "head").state_dict()
    final = ActiveDendriteClassifier.from_pretrained(tmp_path / "final").state_dict()
    assert (released.pop("mlp.output.bias") == 7).all() and (final.pop("mlp.output.bias") != 7).any()
    assert all(released[name].equal(final[name]) for name in final)


def test_a_resumed_run_knows_which_task_it_was_on():
    first = HubPublisher("alice/digits")
    first._boundary.update(3)
    second = HubPublisher("alice/digits")
    second.load_state_dict(first.state_dict())
    assert second._boundary.update(3) == (None, None)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_one_release_after_another_is_sent_in_order(tmp_path, monkeypatch):
    """The first one is held back until all three wait: the later ones begin when it has ended, in their order."""
    events, all_saved, two = [], threading.Event(), PermutedTasks("digits", num_tasks=3)

    def publish(folder, repo, **options):
        events.append(("begin", folder.name))
        assert all_saved.wait(60)
        assert (folder / "model.safetensors").is_file()
        events.append(("end", folder.name))
        return SimpleNamespace(tag=folder.name, url="")

    class AllSaved(Callback):
        def on_train_end(self, trainer, pl_module):
            all_saved.set()

    monkeypatch.setattr("dendrite_zoo.hub.publish.upload.publish", publish)
    publisher = HubPublisher("alice/digits", every="task_end", folder=tmp_path, wait=60.0)
    run = trainer(tmp_path, [publisher, AllSaved()], limit_train_batches=2, limit_val_batches=0)
    run.fit(ContinualClassifier(ActiveDendriteClassifier(64, [16], 10, max_tasks=3)), two)
    steps = ["step-2", "step-4", "step-6"]
    assert events == [(what, step) for step in steps for what in ("begin", "end")]
    assert [release.tag for release in publisher.releases] == steps and not list(tmp_path.glob("step-*"))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_record_of_a_run_recorder_is_the_one_that_is_released(tmp_path, unsent):
    recorder = RunRecorder("my method", context_at_test="given", command="make mine", folder=tmp_path)
    publisher = HubPublisher("alice/digits", folder=tmp_path)
    log = ForgettingLogger(verbose=False, folder=tmp_path, task=epoch, pictures=False)
    trainer(tmp_path, [publisher, log, recorder]).fit(Given(), Tasks())
    (record,) = unsent(tmp_path)
    assert (record["method"], record["context_at_test"], record["command"]) == ("my method", "given", "make mine")
    assert record == recorder.record.to_json()
