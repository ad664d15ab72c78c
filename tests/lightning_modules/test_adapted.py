"""A backbone with dendrites in `ContinualClassifier`, and in a module of somebody's."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dendrite_zoo
from dendrite_zoo import add_dendrites
from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.lightning_modules import ContinualClassifier, MultiTaskClassifier, ReplayClassifier, evaluate_contexts
from dendrite_zoo.models import register_backbone
from dendrite_zoo.models.adapters import builders
from dendrite_zoo.streams import TaskSequence
from tests.lightning_modules.quiet import QUIET, fit


def images(task, seed=0, rows=40):
    """Which half of the image is brighter; each task on another ground."""
    generator = torch.Generator().manual_seed(task + 10 * seed)
    y = torch.randint(2, (rows,), generator=generator)
    x = 0.2 * torch.rand(rows, 1, 6, 6, generator=generator) + 0.25 * task
    for image, label in zip(x, y, strict=True):
        image[:, :, 3 * label : 3 * label + 3] += 0.5
    return x, y


def stream(tasks=2, epochs=2, **options):
    sources = [(*images(task), *images(task, seed=1)) for task in range(tasks)]
    return TaskSequence(sources, epochs_per_task=epochs, batch_size=10, flatten=False, **options)


def backbone():
    torch.manual_seed(0)
    parts = nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*parts)


def adapted(**options):
    options = {"layers": nn.BatchNorm2d, "num_classes": 2, "max_tasks": 3, "head": "linear", **options}
    options["example"] = {"input": torch.zeros(2, 1, 6, 6)}  # by keyword: a ridge head of fewer features, soon solved
    return add_dendrites(backbone(), name="org/backbone@abc", **options)


X = torch.cat([images(task)[0] for task in range(3)])


@torch.no_grad()
def outputs(model, task):
    return model.eval()(X, task=task)


@pytest.mark.parametrize("learn", ["all", "new"])
def test_tasks_are_learned_one_after_another_and_none_is_lost(learn, tmp_path):
    model, log = (
        adapted(context="prototype"),
        ForgettingLogger("val/acc", folder=tmp_path, verbose=False, pictures=False),
    )
    module = ContinualClassifier(model, learn=learn)
    assert module.learning_rate == 5e-3
    fit(module, stream(epochs=6), callbacks=[log])
    matrix = log.matrix
    assert matrix[1, 0] == matrix[0, 0] and matrix[0, 0] > 0.9 and matrix[1, 1] > 0.9
    first = outputs(model, 0)
    module = ContinualClassifier(model, learn=learn, lr=0.1, label_smoothing=0.1)
    fit(module, stream(tasks=3, first_task=2), precision="bf16-mixed")
    assert torch.equal(outputs(model, 0), first) and model.num_tasks == 3
    scores = evaluate_contexts(model, stream(tasks=3), enable_progress_bar=False, accelerator="cpu")
    assert min(scores["context"]) > 0.9 and scores["inferred"] == pytest.approx(scores["given"], abs=0.1)


class Stop(Callback):
    """Ends a fit before the first step; notes how many numbers are kept until then."""

    def on_before_backward(self, trainer, pl_module, loss):
        self.kept = sum(buffer.numel() for _, buffers in pl_module._before for buffer in buffers.values())
        raise RuntimeError("stopped")


@pytest.mark.parametrize(("head", "given", "epochs"), [("ridge", None, 3), ("ridge", 8, 4), ("linear", None, 50)])
def test_by_default_gates_have_few_epochs_before_a_head_that_is_solved(head, given, epochs):
    data = stream(epochs=None)
    options = data.trainer_kwargs() | ({"max_epochs": given} if given else {})
    trainer = Trainer(**options, **QUIET, max_steps=1)
    assert trainer.max_epochs == (given or 100)
    trainer.fit(ContinualClassifier(adapted(head=head)), data)
    assert (trainer.max_epochs, data.epochs_per_task) == (2 * epochs, epochs)


def test_a_task_that_no_batch_was_trained_on_has_not_begun():
    """What it could not change is not copied until then: solved heads are the largest of what a model has."""
    model, stop = adapted(head="ridge", context="prototype", num_classes=50), Stop()
    fit(ContinualClassifier(model), stream(tasks=1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stopped"):
        fit(ContinualClassifier(model), stream(first_task=1), callbacks=[stop])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert 0 < stop.kept < model.heads.ridge_weight.numel() // 4


def test_the_ridge_head_is_solved_before_a_task_is_validated():
    model = adapted(head="ridge", context="given", max_tasks=2)
    module = ContinualClassifier(model, context_at_test="given", lr=1e-9)
    trainer = fit(module, stream(epochs=1))
    assert trainer.callback_metrics["val/task_1/acc"] > 0.9, "of gates and a linear head that learned nothing"
    solved = model.heads.ridge_weight.clone()
    x, y = images(1)
    model.fit_head(1, [(x, y)])
    torch.testing.assert_close(model.heads.ridge_weight, solved, rtol=1e-2, atol=1e-3)
    with pytest.warns(UserWarning, match="task 1 was learned before"):
        fit(ContinualClassifier(model, context_at_test="given"), stream(first_task=1), limit_val_batches=0)
    assert bool(model.heads.is_solved.all()) and not torch.equal(model.heads.ridge_weight, solved)


@pytest.mark.filterwarnings("ignore:.*task 0 was learned before")
def test_the_ridge_head_is_solved_again_in_a_second_fit_of_as_many_steps():
    model = adapted(head="ridge", context="given", max_tasks=1)
    module = ContinualClassifier(model, context_at_test="given", lr=0.1)
    for _ in range(2):
        fit(module, stream(tasks=1, epochs=1))
    solved = model.heads.ridge_weight.clone()
    model.fit_head(0, [images(0)])
    torch.testing.assert_close(model.heads.ridge_weight, solved, rtol=1e-3, atol=1e-4)


def test_a_model_in_eval_mode_as_loaded_is_trained_as_a_new_one_and_answers_by_its_solved_head_afterwards():
    def trained(model):
        torch.manual_seed(1)
        fit(ContinualClassifier(model, lr=0.1), stream(epochs=3))
        return model

    new, loaded = (trained(adapted(head="ridge").train(mode)) for mode in (True, False))
    assert torch.equal(new.column, loaded.column) and bool(new.column.any())
    assert torch.equal(new(X, task=1), outputs(new, 1)), "with a gradient, and without a call of eval()"


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_run_that_is_resumed_goes_on_to_the_bit(tmp_path):
    def module():
        return ContinualClassifier(adapted(context="prototype"))

    def trained(**options):
        torch.manual_seed(1)
        made = module()
        save = ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1, filename="{step}")
        fit(made, stream(), **{"callbacks": [save], "enable_checkpointing": True, **options})
        return made

    whole = trained()
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert max(path.stat().st_size for path in checkpoints) < 40_000 and len(checkpoints) == 2
    for path in checkpoints:
        made = module()
        fit(made, stream(), ckpt_path=path)
        for task in (0, 1):
            assert torch.equal(outputs(made.model, task), outputs(whole.model, task))


def test_a_checkpoint_and_an_artifact_load_on_the_backbone(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "BUILDERS", {})
    module = ContinualClassifier(adapted(head="ridge", context="ridge"))
    trainer = fit(module, stream(epochs=1))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    module.model.eval().save_pretrained(tmp_path / "model")
    again = ContinualClassifier.load_from_checkpoint(tmp_path / "a.ckpt", model=adapted(head="ridge", context="ridge"))
    assert torch.equal(outputs(again.model, 1), outputs(module.model, 1))
    without = ContinualClassifier.load_from_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="learned on org/backbone@abc, which an artifact does not contain"):
        outputs(without.model, 0)
    register_backbone("org/backbone", backbone)
    loaded = dendrite_zoo.load(tmp_path / "model", max_tasks=5)
    assert torch.equal(outputs(loaded, 0), outputs(module.model, 0)) and loaded.max_tasks == 5
    assert torch.equal(loaded(X), module.model(X))
    fit(ContinualClassifier(loaded), stream(tasks=3, epochs=1, first_task=2))
    assert torch.equal(outputs(loaded, 0), outputs(module.model, 0)) and loaded.num_tasks == 3


def test_a_task_starts_where_init_from_says():
    model = adapted(context="given")
    module = ContinualClassifier(model, context_at_test="given", init_from="nearest")
    fit(module, stream(tasks=3, epochs=1))
    assert module.started_from[0] is None and set(module.started_from) == {0, 1, 2}
    module = ContinualClassifier(model, context_at_test="given", init_from=1, lr=1e-9)
    with pytest.warns(UserWarning, match="task 2 was learned before"):
        fit(module, stream(tasks=3, epochs=1, first_task=2))
    torch.testing.assert_close(model.column[:12], model.columns[1, :12])
    with pytest.raises(ValueError, match="the index of a task learned, from 0 to 2"):
        ContinualClassifier(model, context_at_test="given", init_from=7)


def test_what_cannot_be_learned_is_refused():
    model = adapted(context="given")
    model.backbone.requires_grad_(True)
    with pytest.raises(ValueError, match="'all' with a backbone that is trained"):
        ContinualClassifier(model, context_at_test="given", learn="new")
    with pytest.raises(TypeError, match="learns one task after another"):
        MultiTaskClassifier(adapted(), context_at_test="given")


def test_what_to_do_about_heads_replay_and_batches_that_are_no_pairs():
    sources = [(x, y + 2 * task) for task in range(2) for x, y in [images(task)]]
    later = TaskSequence(sources, batch_size=10, flatten=False, epochs_per_task=1)
    with pytest.raises(ValueError, match="Number the classes of each task from 0, or give `num_classes` one number"):
        fit(ContinualClassifier(adapted(num_classes=[2, 2, 2])), later)
    with pytest.raises(ValueError, match="room, but got 4. Build the model, or load it with from_pretrained, with"):
        fit(ContinualClassifier(adapted()), later)
    with pytest.raises(ValueError, match="but got 'AdaptedBackbone'. Each task has gates of its own"):
        ReplayClassifier(adapted())
    rows = DataLoader([{"pixels": x, "target": y} for x, y in zip(*images(0), strict=True)], batch_size=10)
    for module in (backbone(), adapted()):  # of which the latter reads the data before a step
        with pytest.raises(
            TypeError, match=r"but got dict. Give pairs of a dictionary of inputs and .*batch.pop\('target'\)"
        ):
            Trainer(max_epochs=1, num_sanity_val_steps=0, **QUIET).fit(ContinualClassifier(module), rows, rows)
    flat = DataLoader(TensorDataset(images(0)[0].flatten(1), images(0)[1]), batch_size=10)
    with pytest.raises(ValueError, match=r"of other inputs begin with nn.Unflatten\(1, shape\)"):
        Trainer(max_epochs=1, num_sanity_val_steps=0, **QUIET).fit(ContinualClassifier(adapted()), flat, flat)
    with pytest.raises(ValueError, match=r"Expected images \(B, C, H, W\) for AdaptedBackbone, which has convolutions"):
        Trainer(max_epochs=1, **QUIET).fit(ContinualClassifier(adapted()), flat, flat)


class Named(nn.Module):
    """The network of `backbone`, with an input that has a name."""

    def __init__(self):
        super().__init__()
        self.network = backbone()

    def forward(self, pixels):
        return self.network(pixels)


@pytest.mark.parametrize("key", ["labels", "label"])
def test_labels_in_the_dictionary_of_inputs_are_those_of_the_batch(key):
    """As transformers collate them; the network is not given the labels."""
    x, y = images(0)
    model = add_dendrites(
        Named(), layers=nn.Conv2d, num_classes=2, max_tasks=2, context="prototype", example={"pixels": x[:2]}
    )
    rows = DataLoader([{"pixels": one, key: label} for one, label in zip(x, y, strict=True)], batch_size=10)
    module = ContinualClassifier(model)
    trainer = Trainer(max_epochs=1, num_sanity_val_steps=0, **QUIET)
    trainer.fit(module, rows, rows)
    found = torch.cat(trainer.predict(module, rows))
    (scores,) = trainer.validate(module, rows, verbose=False)
    assert (found == y).float().mean() == pytest.approx(scores["val/task_0/acc"])
    again = add_dendrites(
        Named(), layers=nn.Conv2d, num_classes=2, max_tasks=2, context="prototype", example={"pixels": x[:2]}
    )
    again.start_task(0, rows)
    again.eval().fit_head(0, rows)
    pairs = [({"pixels": x}, y)]
    model.start_task(1, pairs)
    model.fit_head(1, pairs)
    torch.testing.assert_close(again({"pixels": x}, task=0), model({"pixels": x}, task=1), rtol=1e-3, atol=1e-3)


def test_a_module_of_somebody_else():
    class Mine(LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.task = adapted(context="prototype"), 0

        def training_step(self, batch, batch_idx):
            x, y = batch
            return F.cross_entropy(self.model(x, task=self.task), y)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.05, weight_decay=0.1)

    module, before = Mine(), []
    for task in range(2):
        loader = DataLoader(TensorDataset(*images(task)), batch_size=10)
        module.task = task
        module.model.start_task(task, (x for x, _ in loader))
        with pytest.warns(UserWarning, match="in eval mode"):
            Trainer(max_epochs=8, log_every_n_steps=1, **QUIET).fit(module, loader)
        before.append(outputs(module.model, task))
    for task in range(2):
        x, y = images(task)
        assert torch.equal(outputs(module.model, task), before[task])
        assert (module.model(x).argmax(1) == y).float().mean() > 0.9


class Tokens(nn.Module):
    """Reads two keyword arguments."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.block = nn.Embedding(20, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, input_ids, attention_mask):
        return self.block(self.embed(input_ids), src_key_padding_mask=attention_mask == 0)


@pytest.mark.parametrize("head", ["linear", "ridge"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_batches_of_keyword_arguments_are_trained_and_validated(head):
    def loader():
        y = torch.arange(42) % 2
        ids = torch.randint(1, 10, (42, 5), generator=torch.Generator().manual_seed(0)) + 10 * y[:, None]
        rows = [({"input_ids": x, "attention_mask": torch.ones(5)}, label) for x, label in zip(ids, y, strict=True)]
        return DataLoader(rows, batch_size=14)

    (example, _), *_ = loader()
    model = add_dendrites(Tokens(), layers="block.linear*", num_classes=2, max_tasks=2, head=head, example=example)
    trainer = Trainer(max_epochs=2, num_sanity_val_steps=0, **QUIET)
    trainer.fit(ContinualClassifier(model, lr=0.05), loader(), loader())
    assert trainer.callback_metrics["val/task_0/acc"] > 0.9


def test_a_backbone_in_bfloat16_takes_the_floats_of_a_stream():
    model = add_dendrites(backbone().bfloat16(), layers=nn.BatchNorm2d, num_classes=2, max_tasks=2, head="linear")
    trainer = fit(ContinualClassifier(model), stream(epochs=4))
    assert min(trainer.callback_metrics[f"val/task_{task}/acc"] for task in (0, 1)) > 0.8
    assert model.eval()(X).isfinite().all()


def test_a_compiled_backbone_is_refused_before_gates_go_into_it():
    compiled = backbone()
    compiled.compile(backend="eager")
    for network in (torch.compile(backbone(), backend="eager"), compiled):
        with pytest.raises(ValueError, match="network that is not compiled.* compile what add_dendrites returns"):
            add_dendrites(network, layers=nn.BatchNorm2d, num_classes=2, max_tasks=2)
