"""Whatever Trainer reads a checkpoint for a module of ours, it is verified; others take a plugin."""

import shutil

import pytest
import torch
from lightning.pytorch import Trainer

from dendrite_zoo.lightning_modules import ContinualClassifier, VerifiedCheckpointIO
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import PermutedTasks
from tests.callbacks.strangers import ReluNet, loader

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*exists and is not empty")
QUIET = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def stream():
    return PermutedTasks("digits", num_tasks=1, batch_size=512, epochs_per_task=1)


def module():
    torch.manual_seed(0)
    return ContinualClassifier(ActiveDendriteClassifier(64, [8], 10, max_tasks=1, num_segments=2))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The checkpoint of a fit, and the same with one bit flipped in a weight."""
    folder = tmp_path_factory.mktemp("fit")
    trainer = Trainer(**stream().trainer_kwargs(), **QUIET, enable_checkpointing=False, default_root_dir=folder)
    trainer.fit(module(), stream())
    trainer.save_checkpoint(folder / "last.ckpt", weights_only=False)
    content = bytearray((folder / "last.ckpt").read_bytes())
    name, weight = next((name, x) for name, x in trainer.lightning_module.state_dict().items() if x.numel() > 99)
    content[content.index(weight.numpy().tobytes()) + 13] ^= 4
    (folder / "flipped.ckpt").write_bytes(content)
    loaded = torch.load(folder / "flipped.ckpt", weights_only=True)["state_dict"][name]
    assert not torch.equal(loaded, weight), "torch does not mind"
    return folder


@pytest.mark.parametrize("method", ["fit", "validate", "test"])
def test_a_damaged_checkpoint_is_refused_before_it_is_read(method, saved, tmp_path):
    model, trainer = module(), Trainer(**stream().trainer_kwargs(), **QUIET, default_root_dir=tmp_path)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(
        ValueError, match=r"flipped.ckpt is damaged, or no checkpoint \(Bad CRC-32 .*Read another one: .*last"
    ):
        getattr(trainer, method)(model, stream(), ckpt_path=saved / "flipped.ckpt")
    assert all(map(torch.equal, before, model.parameters()))


def test_load_from_checkpoint_is_verified(saved):
    assert ContinualClassifier.load_from_checkpoint(saved / "last.ckpt").model.num_tasks == 1
    with pytest.raises(ValueError, match="flipped.ckpt is damaged"):
        ContinualClassifier.load_from_checkpoint(str(saved / "flipped.ckpt"))
    with open(saved / "last.ckpt", "rb") as file:
        assert ContinualClassifier.load_from_checkpoint(file).model.num_tasks == 1


def test_the_one_before_is_read_instead(saved, tmp_path):
    shutil.copy(saved / "flipped.ckpt", tmp_path / "last.ckpt")
    shutil.copy(saved / "last.ckpt", tmp_path / "previous.ckpt")
    whole, fallen_back = (Trainer(**stream().trainer_kwargs(), **QUIET, default_root_dir=tmp_path) for _ in range(2))
    expected = whole.validate(module(), stream(), ckpt_path=saved / "last.ckpt", verbose=False)
    with pytest.warns(
        UserWarning, match="last.ckpt is damaged .* so .*previous.ckpt, the one before it, is read instead"
    ):
        got = fallen_back.validate(module(), stream(), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert got == expected


def test_a_module_of_ones_own_takes_the_plugin(tmp_path):
    trainer = Trainer(**QUIET, default_root_dir=tmp_path, max_epochs=1, plugins=[VerifiedCheckpointIO()])
    trainer.fit(ReluNet(), loader(), loader())
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    trainer.validate(ReluNet(), loader(), ckpt_path=tmp_path / "mine.ckpt", verbose=False)
    content = (tmp_path / "mine.ckpt").read_bytes()
    (tmp_path / "mine.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="mine.ckpt is damaged"):
        trainer.validate(ReluNet(), loader(), ckpt_path=tmp_path / "mine.ckpt", verbose=False)


def test_a_reader_of_somebodys_own_stays(saved, tmp_path):
    class Own(VerifiedCheckpointIO):
        pass

    own = Own()
    trainer = Trainer(**stream().trainer_kwargs(), **QUIET, default_root_dir=tmp_path, plugins=[own])
    trainer.validate(module(), stream(), ckpt_path=saved / "last.ckpt", verbose=False)
    assert trainer.strategy.checkpoint_io is own
