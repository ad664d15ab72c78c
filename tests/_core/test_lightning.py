"""Each private corner of Lightning, and what holds in a version that lacks it."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loops import _FitLoop
from torch.utils.data import DataLoader

from dendrite_zoo._core.lightning import (
    attached_trainer,
    loaders_given,
    logged_metrics,
    logging_step,
    require,
    resume_missed_validation,
    second_pass,
    transfer_batch,
    unscale_gradients,
)
from tests.callbacks.strangers import ReluNet, Tasks, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class TwoOptimizers(ReluNet):
    """Each batch takes a step of both, which ``Trainer.global_step`` counts as two."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (self.net[0], self.net[2])]


def test_the_step_of_logs_counts_batches(tmp_path):
    fit = trainer(tmp_path, [], epochs=1)
    fit.fit(TwoOptimizers(), Tasks())
    assert (logging_step(fit), fit.global_step) == (3, 6)  # three batches
    without = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace()), global_step=6)
    assert logging_step(without) == 6


class Hooks:
    """A module that writes down in which order its hooks change a batch."""

    def __init__(self, private):
        if private:
            self._on_before_batch_transfer = self.on_before_batch_transfer

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return f"before({batch}, {dataloader_idx})"


@pytest.mark.parametrize("private", [True, False])
def test_a_batch_goes_through_all_hooks(private):
    fit = SimpleNamespace(
        lightning_module=Hooks(private),
        precision_plugin=SimpleNamespace(convert_input=lambda batch: f"convert({batch})"),
        strategy=SimpleNamespace(batch_to_device=lambda batch: f"move({batch})"),
    )
    assert transfer_batch(fit, "x") == "move(before(convert(x), 0))"


class Scaler:
    def __init__(self, *, done=False):
        self.done, self.unscaled = done, []

    def unscale_(self, optimizer):
        if self.done:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        self.unscaled.append(optimizer)


def test_gradients_of_fused_optimizers_are_unscaled():
    fused, plain = SimpleNamespace(_step_supports_amp_scaling=True), SimpleNamespace()
    scaler = Scaler()
    fit = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))
    assert unscale_gradients(fit, fused) and unscale_gradients(fit, plain)
    assert scaler.unscaled == [fused], "Lightning has unscaled those of the other"
    assert unscale_gradients(SimpleNamespace(precision_plugin=SimpleNamespace(scaler=Scaler(done=True))), fused)
    assert not unscale_gradients(SimpleNamespace(precision_plugin=SimpleNamespace()), fused)


def test_another_lightning_repeats_no_validation_and_says_so(tmp_path, monkeypatch):
    monkeypatch.delattr(_FitLoop, "restarted_mid_epoch")
    fit = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.warns(UserWarning, match=r"Expected the loops of lightning 2.6, .*restarted_mid_epoch.*not repeated"):
        assert not resume_missed_validation(fit)


def test_a_module_without_a_trainer_has_none():
    module = LightningModule()
    assert attached_trainer(module) is None
    module.trainer = fit = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert attached_trainer(module) is fit


@pytest.mark.parametrize("options", [{}, {"num_workers": 1, "persistent_workers": True}], ids=["plain", "persistent"])
def test_a_second_pass_leaves_the_first_where_it_is(options):
    loader = DataLoader(torch.arange(6), batch_size=2, **options)
    first = iter(loader)
    seen = [next(first).tolist()]
    assert [batch.tolist() for batch in second_pass(loader)] == [[0, 1], [2, 3], [4, 5]]
    assert [*seen, *(batch.tolist() for batch in first)] == [[0, 1], [2, 3], [4, 5]]


def test_a_version_without_an_overridden_method_is_refused():
    require(Trainer, "fit")
    with pytest.raises(ImportError, match=r"Expected lightning 2\.6, but got .* Trainer has no _fit_anew\. Install"):
        require(Trainer, "fit", "_fit_anew")


def test_another_lightning_shows_no_metric_objects_and_says_so():
    results = {"a": SimpleNamespace(is_tensor=False, has_reset=False)}
    with pytest.warns(UserWarning, match=r"Expected the results of lightning 2.6, .*'meta'.*an `nn.ModuleList`"):
        assert logged_metrics(SimpleNamespace(_results=results)) == {}
    assert logged_metrics(SimpleNamespace(_results=None)) == {}
    assert loaders_given(SimpleNamespace()) is None
