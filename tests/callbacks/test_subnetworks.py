"""SubnetworkLogger: units by task against a network worked by hand, segments against a loop, files, resume."""

from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from dendrite_zoo.callbacks import SubnetworkLogger, subnetworks
from dendrite_zoo.callbacks.activation_counts import ActivationCounts
from dendrite_zoo.callbacks.call_watcher import CallWatcher
from dendrite_zoo.callbacks.context_watcher import ContextWatcher, winning_segments
from dendrite_zoo.layers import ActiveDendriteLinear
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.metrics import task_overlap
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import PermutedTasks
from tests import reference
from tests.callbacks.strangers import ReluNet, Tasks, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),
]


class Frozen(ReluNet):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_units_by_task_in_a_strangers_network(tmp_path):
    log, data = SubnetworkLogger(), Tasks()
    module = Frozen()
    run = trainer(tmp_path, [log], epochs=1)
    run.fit(module, data)
    rates = log.win_rates["net.1"]
    for task, loader in enumerate(data.val_dataloader()):
        x = torch.cat([x for x, _ in loader])
        torch.testing.assert_close(rates[task], (module.net[0](x) > 0).float().mean(0))
    overlap = task_overlap(rates)
    apart = ~torch.eye(3, dtype=torch.bool)
    assert run.callback_metrics["subnetworks/net.1/overlap"].item() == pytest.approx(overlap[apart].mean().item())
    assert run.callback_metrics["subnetworks/net.1/within"].item() == pytest.approx(overlap.diagonal().mean().item())
    assert log.segments == {}
    record = json.loads((tmp_path / "subnetworks.json").read_text())
    torch.testing.assert_close(torch.tensor(record["layers"]["net.1"]["overlap"]), overlap, atol=1e-4, rtol=0)
    assert (tmp_path / "subnetworks.png").exists()


def test_a_compiled_network_is_counted_too(tmp_path):
    torch.compiler.reset()
    log, module = SubnetworkLogger(), Frozen()
    module.net = torch.compile(module.net, backend="eager")
    trainer(tmp_path, [log], epochs=1, num_sanity_val_steps=2).fit(module, Tasks())
    assert list(log.win_rates) == ["net.1"] and len(log.win_rates["net.1"]) == 3


def test_layers_that_never_ran_are_not_passed_over_in_silence(tmp_path):
    module, log = Frozen(), SubnetworkLogger()
    module.forgotten, module.net = nn.ReLU(), nn.Linear(6, 3)
    with pytest.warns(UserWarning, match=r"SubnetworkLogger: Expected the modules \['forgotten'\] to be called"):
        trainer(tmp_path, [log], epochs=1).fit(module, Tasks())
    assert log.win_rates == {}


def test_one_loader_is_the_current_task(tmp_path):
    class ByEpoch(Tasks):
        @property
        def current_task(self):
            return self.trainer.current_epoch

    class OneLoader(Frozen):
        def validation_step(self, batch, batch_idx):
            self.net(batch[0])

    log = SubnetworkLogger()
    trainer(tmp_path, [log], epochs=2).fit(OneLoader(), ByEpoch(tasks=1))
    assert log.win_rates["net.1"].shape == (2, 16) and not log.win_rates["net.1"].isnan().any()


def test_a_stranger_tells_the_task(tmp_path):
    log = SubnetworkLogger(task=lambda trainer: trainer.current_epoch)
    run = trainer(tmp_path, [log], epochs=3)
    run.fit(ReluNet(), Tasks(tasks=1))
    assert log.win_rates["net.1"].shape == (3, 16) and not log.win_rates["net.1"].isnan().any()
    overlap = task_overlap(log.win_rates["net.1"])
    apart = ~torch.eye(3, dtype=torch.bool)
    assert run.callback_metrics["subnetworks/net.1/overlap"].item() == pytest.approx(overlap[apart].mean().item())


def dendrites(tmp_path, log, *, winners="activation", **kwargs):
    torch.manual_seed(0)
    sizes = {"max_tasks": 4, "num_segments": 6, "activation_density": 0.2}
    model = ActiveDendriteClassifier(64, [40, 30], 10, **sizes, winners=winners)
    stream = PermutedTasks("digits", 3, batch_size=64)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    quiet |= {"enable_model_summary": False, "limit_train_batches": 2, "limit_val_batches": 2}
    run = Trainer(**{**quiet, **stream.trainer_kwargs(), **kwargs}, callbacks=[log], default_root_dir=tmp_path)
    run.fit(ContinualClassifier(model), stream)
    return run, model


def test_which_segments_win_in_which_context(tmp_path):
    log = SubnetworkLogger(folder=tmp_path / "here")
    run, model = dendrites(tmp_path, log)
    assert list(log.win_rates) == ["model.mlp.activations.0", "model.mlp.activations.1"]
    torch.testing.assert_close(log.win_rates["model.mlp.activations.0"].sum(1), torch.full((3,), 8.0))
    for number, layer in enumerate(model.mlp.hidden):
        answers = log.segments[f"model.mlp.hidden.{number}"]
        for task in range(3):
            context = model.context.prototypes[task]
            expected = [reference.gate_unit(torch.ones(()), u, context, "abs_max")[1] for u in layer.segments.detach()]
            assert answers[task].tolist() == expected
        used = sum(len(set(column)) for column in answers.T.tolist()) / len(layer.segments)
        logged = run.callback_metrics[f"subnetworks/model.mlp.hidden.{number}/segments"]
        assert logged.item() == pytest.approx(used)
    record = json.loads((tmp_path / "here" / "subnetworks.json").read_text())
    assert list(record["layers"]) == list(log.win_rates)


def test_units_that_the_context_chooses(tmp_path):
    """Only the active units are computed; which they are follows from the contexts that are inferred."""
    log = SubnetworkLogger()
    _, model = dendrites(tmp_path, log, winners="context")
    assert list(log.win_rates) == ["model.mlp.activations.0", "model.mlp.activations.1"]
    assert list(log.segments) == ["model.mlp.hidden.0", "model.mlp.hidden.1"]
    stream = PermutedTasks("digits", 3, batch_size=64)
    for task in range(3):
        x = torch.cat([x for x, _ in stream.task_loader(task, "val")][:2])
        inferred = model.context.infer(x)
        for number, units in enumerate((40, 30)):
            active = torch.zeros(len(x), units)
            for row, context in zip(active, inferred.tolist(), strict=True):
                row[model.mlp.active_units(model.context.prototypes[context])[number]] = 1
            torch.testing.assert_close(log.win_rates[f"model.mlp.activations.{number}"][task], active.mean(0))
    narrowed = SubnetworkLogger(layers=["model.mlp.activations.1"])
    dendrites(tmp_path, narrowed, winners="context")
    assert list(narrowed.win_rates) == ["model.mlp.activations.1"] and not narrowed.segments


@pytest.mark.parametrize("form", ["vector", "rows", "codebook", "id", "ids"])
def test_contexts_of_every_form(form):
    torch.manual_seed(0)
    codebook = torch.eye(3) if form in ("id", "ids") else torch.randn(3, 3)
    layer = ActiveDendriteLinear(4, 5, context_dim=3, num_segments=6)
    index = torch.tensor([2, 0, 2])
    context = {
        "vector": codebook[2],
        "rows": codebook[index],
        "codebook": (codebook, index),
        "id": torch.tensor(2),
        "ids": index,
    }[form]
    net = nn.ModuleDict({"layer": layer})
    watcher = ContextWatcher(ActivationCounts(), net)
    with CallWatcher(net, on_call=watcher.on_call):
        layer(torch.randn(3, 4), context=context)
        layer(torch.randn(3, 4), codebook[0])  # only the first batch of a task counts
    (seen,) = watcher.contexts.values()
    assert winning_segments(*seen).equal(winning_segments(layer, codebook[2]))


def test_state_goes_through_a_checkpoint(tmp_path):
    log = SubnetworkLogger()
    dendrites(tmp_path, log)
    torch.save(log.state_dict(), tmp_path / "state.pt")
    again = SubnetworkLogger()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for name in ("win_rates", "segments"):
        ours, theirs = getattr(log, name), getattr(again, name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_narrowed_to_layers_and_bad_names(tmp_path):
    log = SubnetworkLogger(layers=["model.mlp.activations.1", "model.mlp.hidden.1"])
    dendrites(tmp_path, log)
    assert list(log.win_rates) == ["model.mlp.activations.1"] and list(log.segments) == ["model.mlp.hidden.1"]
    with pytest.raises(ValueError, match=r"no layer 'net.2x'. Did you mean 'net.2'"):
        trainer(tmp_path, [SubnetworkLogger(layers=["net.2x"])]).fit(Frozen(), Tasks())


def test_the_picture_is_drawn_when_a_fit_ends_and_on_request(tmp_path, monkeypatch):
    drawn = []
    draw = subnetworks.plot_subnetworks
    monkeypatch.setattr(subnetworks, "plot_subnetworks", lambda *args, **kw: drawn.append(args) or draw(*args, **kw))
    log = SubnetworkLogger()
    run = trainer(tmp_path, [log], epochs=2)
    run.validate(Frozen(), Tasks(), verbose=False)
    assert not drawn and (tmp_path / "subnetworks.json").exists()
    run.fit(Frozen(), Tasks())
    assert [path for _, path in drawn] == [tmp_path / "subnetworks.png"]
    figure = log.plot(tmp_path / "mine.svg", title="mine", tasks=["a", "b", "c"])
    assert (tmp_path / "mine.svg").exists()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="holds no layer"):
        SubnetworkLogger().plot()
