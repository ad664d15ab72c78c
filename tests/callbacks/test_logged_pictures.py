"""The matrix as an image: what lies in the files of TensorBoard and Weights & Biases is the picture beside them."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from torch import nn

from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.streams import PermutedTasks


def fit(logger, **kwargs):
    stream = PermutedTasks("digits", num_tasks=2)
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "log_every_n_steps": 2}
    log = ForgettingLogger("val/acc", verbose=False, **kwargs)
    torch.manual_seed(0)
    Trainer(**stream.trainer_kwargs(), **quiet, logger=logger, callbacks=[log]).fit(
        ContinualClassifier(nn.Linear(64, 10)), stream
    )
    return log


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="", version="run")
    fit(logger)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    (image,) = events.Images("matrix")
    with Image.open(tmp_path / "run" / "matrix.png") as picture:
        expected = np.asarray(picture)[..., :3].astype(int)
    path = tmp_path / "logged.png"
    path.write_bytes(image.encoded_image_string)
    with Image.open(path) as picture:
        assert np.abs(np.asarray(picture).astype(int) - expected).max() <= 1
    assert image.step == 2 * 6, "batches that stepped"
    assert {"forgetting", "val/task_0/acc"} <= set(events.Tags()["scalars"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_weights_and_biases_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    log = fit(logger, folder=tmp_path)
    import wandb

    (image,) = (tmp_path / "wandb").rglob("media/images/*.png")
    assert image.read_bytes() == (tmp_path / "matrix.png").read_bytes()
    wandb.finish()
    assert log.matrix.isfinite().all()


def test_a_logger_without_pictures_is_left_alone(tmp_path):
    log = fit(CSVLogger(tmp_path, name="", version="run"))
    assert json.loads((tmp_path / "run" / "matrix.json").read_text())["matrix"][1][0] == pytest.approx(
        float(log.matrix[1, 0]), abs=1e-6
    )
