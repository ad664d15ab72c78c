"""A Trainer that prints nothing, for the tests of the modules."""

from lightning.pytorch import Trainer

QUIET = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def fit(module, data, ckpt_path=None, **kwargs):
    """Fit by what a stream asks of a Trainer; return the Trainer."""
    trainer = Trainer(**data.trainer_kwargs(), **{**QUIET, **kwargs})
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer
