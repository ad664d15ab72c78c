"""More than classes: regression, several labels a row, losses and metrics of one's own."""

from __future__ import annotations

import pytest
import torch
import torchmetrics
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from dendrite_zoo.lightning_modules import ContinualClassifier, MultiTaskClassifier, ReplayClassifier
from dendrite_zoo.streams import MixedTasks, PermutedTasks, TaskSequence
from tests.lightning_modules.quiet import QUIET, fit
from tests.models.adapters.networks import Recurrent

F = nn.functional


def regression(shape=(2,)):
    torch.manual_seed(1)
    x = torch.randn(70, 6)
    y = (x @ torch.randn(6, 2))[:, : shape[0]] if shape else x[:, 0]
    return x[:50], y[:50], x[50:], y[50:]


def outputs(module, stream, task):
    """All outputs and targets of a task's test rows, in one piece."""
    x, y = (torch.cat(column) for column in zip(*stream.task_loader(task, "test"), strict=True))
    return module.model.eval()(x).detach(), y


@pytest.mark.parametrize("mixed", [False, True])
def test_metrics_of_a_regression_are_those_of_all_rows_together(mixed):
    """Batches of 8 and 8 and 4 rows: a root of a mean is no mean of roots."""
    metrics = {"mae": torchmetrics.MeanAbsoluteError(), "rmse": torchmetrics.MeanSquaredError(squared=False)}
    stream = PermutedTasks(regression(), 2, batch_size=8, epochs_per_task=2)
    kind = MultiTaskClassifier if mixed else ContinualClassifier
    module = kind(nn.Linear(6, 2), loss=nn.MSELoss(), metrics=metrics, lr=0.05)
    logged = fit(module, MixedTasks(stream) if mixed else stream).callback_metrics
    for task in range(2):
        output, y = outputs(module, stream, task)
        expected = {
            "loss": F.mse_loss(output, y),
            "mae": (output - y).abs().mean(),
            "rmse": (output - y).square().mean().sqrt(),
        }
        for name, value in expected.items():
            assert logged[f"val/task_{task}/{name}"] == pytest.approx(float(value), rel=1e-5), name
    assert not any(name.endswith("/acc") for name in logged)


def test_several_labels_a_row():
    torch.manual_seed(0)
    x = torch.randn(60, 6)
    y = (x[:, :3] > 0).float()
    stream = PermutedTasks((x, y, x, y), 2, batch_size=16, epochs_per_task=1)
    collection = torchmetrics.MetricCollection(
        [torchmetrics.classification.MultilabelAccuracy(3), torchmetrics.classification.MultilabelF1Score(3)],
        prefix="labels/",
    )
    module = ContinualClassifier(nn.Linear(6, 3), loss=nn.BCEWithLogitsLoss(), metrics=collection, lr=0.05)
    logged = fit(module, stream).callback_metrics
    for task in range(2):
        output, y = outputs(module, stream, task)
        right = ((output > 0) == y.bool()).float().mean()
        assert logged[f"val/task_{task}/labels/MultilabelAccuracy"] == pytest.approx(float(right), abs=1e-6)
    assert "val/task_0/labels/MultilabelF1Score" in logged


def test_a_metric_beside_accuracy_and_each_validation_by_itself():
    """The last validation's values, not those of all of them together."""
    stream = PermutedTasks("digits", 2, epochs_per_task=3)
    module = ContinualClassifier(
        nn.Linear(64, 10), metrics=torchmetrics.classification.MulticlassAccuracy(10, average="micro")
    )
    logged = fit(module, stream).callback_metrics
    for task in range(2):
        output, y = outputs(module, stream, task)
        right = float((output.argmax(1) == y).float().mean())
        assert logged[f"val/task_{task}/acc"] == pytest.approx(right, abs=1e-6)
        assert logged[f"val/task_{task}/MulticlassAccuracy"] == pytest.approx(right, abs=1e-6)


def scores(module, batches):
    """What a validation of one task logs, its batches given as ``(x, y)``."""
    loader = torch.utils.data.DataLoader(list(batches), batch_size=None)
    trainer = Trainer(**QUIET)
    return trainer.validate(module, [loader], verbose=False)[0]


@pytest.mark.parametrize(("loss", "ignored"), [(None, -100), (nn.CrossEntropyLoss(ignore_index=255), 255)])
def test_labels_that_the_loss_ignores_count_neither_as_right_nor_as_wrong(loss, ignored):
    """Pixels of a mask: four are labelled in the first batch, one in the second, none in the third."""
    x = torch.zeros(2, 3, 1, 2)
    x[:, 1] = 1
    y = torch.full((3, 2, 1, 2), ignored)
    y[0], y[1, 0, 0, 0] = torch.tensor([[[1, 1]], [[1, 0]]]), 0
    module = ContinualClassifier(nn.Identity(), loss=loss, optimizer=torch.optim.SGD)
    assert scores(module, ((x, labels) for labels in y))["val/task_0/acc"] == pytest.approx(3 / 5)


def test_labels_of_words_where_a_model_has_its_classes_last():
    """As language models have them: ``(B, words, classes)`` for labels ``(B, words)``."""
    output = F.one_hot(torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]]), 5).float()
    module = ContinualClassifier(nn.Identity(), loss=lambda output, y: F.cross_entropy(output.transpose(1, 2), y))
    logged = scores(module, [(output, torch.tensor([[0, 1, 2, 3], [3, -100, 0, 1]]))])
    assert logged["val/task_0/acc"] == pytest.approx(5 / 7)


def test_a_metric_called_acc_takes_the_place_of_ours():
    top_two = torchmetrics.classification.MulticlassAccuracy(3, average="micro", top_k=2)
    module = ContinualClassifier(nn.Identity(), loss=nn.CrossEntropyLoss(), metrics={"acc": top_two, "loss": top_two})
    logged = scores(module, [(torch.tensor([[3.0, 2.0, 1.0]] * 3), torch.arange(3))])
    assert logged == pytest.approx({"val/task_0/acc": 2 / 3, "val/task_0/loss": 2 / 3})


@pytest.mark.parametrize("kind", [ContinualClassifier, ReplayClassifier])
def test_a_subclass_may_have_a_loss_of_its_own_and_its_optimizer(kind):
    class Margin(kind):
        def loss(self, output, target):
            return F.multi_margin_loss(output, target)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.3)

    rates = []

    class Watched(Margin):
        def on_before_optimizer_step(self, optimizer):
            rates.append(optimizer.param_groups[0]["lr"])

    module = Watched(nn.Linear(64, 10), lr_schedule="cosine")
    module.log = lambda *args, **kwargs: None
    x, y = torch.randn(5, 64), torch.arange(5)
    torch.testing.assert_close(module.training_step((x, y), 0), F.multi_margin_loss(module.model(x), y))
    del module.log
    fit(module, PermutedTasks("digits", 2, batch_size=719, epochs_per_task=1))
    assert rates == pytest.approx([0.3, 0.15] * 2), "from its own learning rate, not from the argument `lr`"


def test_an_optimizer_that_is_made_already_is_refused_at_once():
    network = nn.Linear(6, 2)
    for optimizer, got in ((torch.optim.SGD(network.parameters(), lr=0.1), "SGD"), ("sgd", "'sgd'")):
        with pytest.raises(TypeError, match=f"Expected `optimizer` to be a function .* but got {got}. Pass such as"):
            ContinualClassifier(network, optimizer=optimizer)


def test_a_checkpoint_asks_for_the_loss_again(tmp_path):
    stream = PermutedTasks(regression(), 1, epochs_per_task=1)
    module = ContinualClassifier(nn.Linear(6, 2), loss=nn.MSELoss())
    trainer = fit(module, stream)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(TypeError, match=r"`loss` to be a module or function .*'MSELoss\(\)'.*load_from_checkpoint"):
        ContinualClassifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True, model=nn.Linear(6, 2))
    again = ContinualClassifier.load_from_checkpoint(
        tmp_path / "a.ckpt", weights_only=True, model=nn.Linear(6, 2), loss=nn.MSELoss()
    )
    x = torch.randn(3, 6)
    assert again(x).equal(module(x))
    assert again.predict_step(x, 0).equal(module(x)), "an output, and no class"


@pytest.mark.parametrize("pack", [lambda x: x, lambda x: (x, None), lambda x: {"x": x}], ids=["x", "(x, y)", "{x}"])
def test_the_inputs_of_a_batch_to_predict(pack):
    class Net(nn.Linear):
        def forward(self, x):
            return super().forward(x["x"] if isinstance(x, dict) else x)

    module, x = ContinualClassifier(Net(6, 3)), torch.randn(4, 6)
    assert module.predict_step(pack(x), 0).equal(module(x).argmax(1))


@pytest.mark.parametrize(
    ("targets", "model", "arguments", "message"),
    [
        (
            torch.zeros(20),
            nn.Linear(6, 2),
            {},
            r"Expected class labels, .* but got torch.float32 targets of shape \(20,\)",
        ),
        (torch.ones(20), nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)), {}, r"targets of shape \(20,\)\. .*MSELoss"),
        (torch.ones(20, 2), nn.Linear(6, 2), {}, r"targets of shape \(20, 2\)\. .* loss=nn.BCEWithLogitsLoss\(\)"),
        (torch.zeros(20), nn.Linear(6, 1), {"loss": nn.MSELoss()}, r"targets of shape \(20, 1\), .* but got \(20,\)"),
    ],
)
def test_targets_that_a_loss_is_not_meant_for(targets, model, arguments, message):
    x = torch.randn(20, 6)
    with pytest.raises(ValueError, match=message):
        fit(ContinualClassifier(model, **arguments), PermutedTasks((x, targets, x, targets), 1, epochs_per_task=1))


def test_probabilities_of_all_classes_are_targets_of_cross_entropy():
    module = ContinualClassifier(nn.Linear(6, 3))
    module.log = lambda *args, **kwargs: None
    x, y = torch.randn(5, 6), torch.softmax(torch.randn(5, 3), 1)
    by_hand = -(y * module.model(x).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(module.training_step((x, y), 0), by_hand)
    labels = torch.tensor([0, 1, 2, 1, 0], dtype=torch.uint8)  # torch itself takes int64 alone
    torch.testing.assert_close(module.training_step((x, labels), 0), F.cross_entropy(module.model(x), labels.long()))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.uint16])
def test_labels_of_any_integers_count(kind):
    y = torch.arange(0, 256, 12)  # of 8 bits 156 is -100, which torch passes over
    model = nn.Linear(256, 256, bias=False)
    nn.init.eye_(model.weight).data[156] = 0.0
    batches = DataLoader([(torch.eye(256)[y], y.to(kind))], batch_size=None)
    trainer = Trainer(max_epochs=1, **QUIET)
    module = ContinualClassifier(model, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    trainer.fit(module, batches, batches)
    assert trainer.callback_metrics["val/task_0/acc"] == pytest.approx((len(y) - 1) / len(y))


def test_what_is_refused():
    with pytest.raises(ValueError, match="`label_smoothing` to be 0 beside `loss`, but got 0.1"):
        ContinualClassifier(nn.Linear(6, 2), loss=nn.MSELoss(), label_smoothing=0.1)
    with pytest.raises(TypeError, match="Expected `loss` to be a module or function of .output, target., but got 3"):
        ContinualClassifier(nn.Linear(6, 2), loss=3)
    with pytest.raises(TypeError, match="Expected `metrics` to be a Metric of torchmetrics.*, but got str for 'mae'"):
        ContinualClassifier(nn.Linear(6, 2), metrics={"mae": "mae"})

    class Pair(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(TypeError, match="Expected a model that returns a tensor, but got tuple"):
        fit(ContinualClassifier(Pair(64, 10)), PermutedTasks("digits", 1, epochs_per_task=1))


def test_an_output_with_logits_is_taken_for_them():
    class Logits(nn.Linear):
        def forward(self, x, labels=None):
            return type("Output", (), {"logits": super().forward(x), "loss": None})()

    trainer = fit(ContinualClassifier(Logits(64, 10)), PermutedTasks("digits", 1, epochs_per_task=1))
    assert "val/task_0/acc" in trainer.callback_metrics


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_lightnings_callbacks_watch_what_is_logged(tmp_path):
    """Stopped by a metric of one task, and the best model by it is the one that is kept."""
    stream = PermutedTasks(regression(), 1, epochs_per_task=30, batch_size=8)
    stop = EarlyStopping("val/task_0/mae", patience=2, check_finite=False)
    best = ModelCheckpoint(tmp_path, monitor="val/task_0/mae", mode="min", filename="{epoch}")
    module = ContinualClassifier(
        nn.Linear(6, 2), loss=nn.MSELoss(), metrics={"mae": torchmetrics.MeanAbsoluteError()}, lr=0.5
    )
    seen = []
    module.on_validation_end = lambda: seen.append(float(module.trainer.callback_metrics["val/task_0/mae"]))
    trainer = fit(module, stream, callbacks=[stop, best], enable_checkpointing=True)
    assert best.best_model_score == pytest.approx(min(seen))
    assert trainer.current_epoch < 30 and len(seen) - 1 - seen.index(min(seen)) == 2


@pytest.mark.parametrize("network", [lambda: Recurrent(3, 2), lambda: nn.Sequential(nn.Conv1d(5, 2, 3), nn.Flatten())])
def test_a_network_of_series_says_how_to_get_them_from_a_stream(network):
    data = torch.randn(20, 5, 3), torch.arange(20) % 2
    flat, images = TaskSequence([data], epochs_per_task=1), TaskSequence([data], flatten=False, epochs_per_task=1)
    with pytest.raises(ValueError, match=r"Expected series for .*, but got \(16, 15\).*nn.Unflatten\(1, shape\)"):
        fit(ContinualClassifier(network()), flat)
    with pytest.raises(ValueError, match=r"Expected series for .*, but got \(16, 1, 5, 3\).*nn.Flatten\(1, 2\)"):
        fit(ContinualClassifier(network()), images)
    fit(ContinualClassifier(nn.Sequential(nn.Unflatten(1, (5, 3)), network())), flat)
    fit(ContinualClassifier(nn.Sequential(nn.Flatten(1, 2), network())), images)
