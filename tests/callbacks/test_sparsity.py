"""SparsityLogger against counts made by hand, and nothing left behind in the network."""

import copy
import csv
import math
import pickle

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger, SubnetworkLogger
from dendrite_zoo.layers import ActiveDendriteLinear, KWinners, SparseLinear
from tests.callbacks.strangers import ReluNet, Tasks, loader, trainer
from tests.callbacks.test_subnetworks import dendrites

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def entropy(p):
    return 0.0 if p in (0, 1) else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def by_hand(outputs):
    """The definitions, unit by unit and sample by sample, of outputs ``(B, U)``."""
    B, U = outputs.shape
    counts = [sum(1 for b in range(B) if outputs[b, u].item() != 0) for u in range(U)]
    return {
        "activation_sparsity": 1 - sum(counts) / (B * U),
        "dead_units": sum(c == 0 for c in counts) / U,
        "duty_cycle_entropy": sum(entropy(c / B) for c in counts) / U,
    }


def inputs(j):
    return torch.cat([x for x, _ in loader(seed=100 + j)])  # as Tasks validates on


def assert_figures(got, expected):
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-6), name


class Net(ReluNet):
    """Any network in place of the small one."""

    def __init__(self, net):
        super().__init__()
        self.net = net


class WithTest(Net):
    """Is tested on what others are validated on."""

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("test/acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_test_is_watched_as_a_validation_is(tmp_path, tasks):
    torch.manual_seed(0)
    module, log, subnetworks = WithTest(ReluNet().net), SparsityLogger(task=0), SubnetworkLogger(task=0)
    loaders = [loader(seed=100 + j) for j in range(tasks)]
    run = trainer(tmp_path, [log, subnetworks])
    run.test(module, loaders if tasks > 1 else loaders[0], verbose=False)
    hidden = [module.net[:2](inputs(j)).detach() for j in range(tasks)]
    assert_figures(log.values["net.1"], by_hand(torch.cat(hidden)))
    for j in range(tasks):
        assert run.callback_metrics[f"sparsity/net.1/dead_units/task_{j}"] == by_hand(hidden[j])["dead_units"]
        torch.testing.assert_close(subnetworks.win_rates["net.1"][j], (hidden[j] != 0).float().mean(0))
    assert (tmp_path / "subnetworks.json").is_file() and not module.net[1]._forward_hooks


def validate(tmp_path, module, *callbacks, tasks=3):
    run = trainer(tmp_path, list(callbacks))
    run.validate(module, Tasks(tasks), verbose=False)
    return run


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), KWinners(k=3), nn.Hardtanh(0, 1), nn.GELU()])
def test_figures_of_each_task_and_of_all(tmp_path, activation):
    net = nn.Sequential(nn.Linear(6, 16), activation, nn.Linear(16, 3))
    log = SparsityLogger()
    run = validate(tmp_path, Net(net), log)
    with torch.no_grad():
        outputs = [net[1](net[0](inputs(j))) for j in range(3)]
    assert_figures(log.values["net.1"], by_hand(torch.cat(outputs)))
    for j in range(3):
        expected = {f"{name}/task_{j}": value for name, value in by_hand(outputs[j]).items()}
        assert_figures(log.values["net.1"], expected)
    assert set(log.values) == {"net.0", "net.1", "net.2"}
    assert log.values["net.0"] == {"weight_sparsity": 0.0}
    for layer, figures in log.values.items():
        for name, value in figures.items():
            assert run.callback_metrics[f"sparsity/{layer}/{name}"].item() == pytest.approx(value)


def test_k_winners_have_the_sparsity_they_are_built_for(tmp_path):
    net = nn.Sequential(nn.Linear(6, 40), KWinners(density=0.05), nn.Linear(40, 3))
    log = SparsityLogger()
    validate(tmp_path, Net(net), log)
    assert log.values["net.1"]["activation_sparsity"] == pytest.approx(0.95)
    assert log.values["net.1"]["duty_cycle_entropy"] <= entropy(0.05) + 1e-6


def test_weights_of_our_layers_and_of_convolutions(tmp_path):
    class Mixed(ReluNet):
        def __init__(self):
            super().__init__()
            self.net = nn.ModuleDict(
                {
                    "dendrites": ActiveDendriteLinear(6, 8, context_dim=2, num_segments=2, weight_density=0.5),
                    "sparse": SparseLinear(8, 9, density=1 / 4),
                    "conv": nn.Conv1d(1, 2, 3),
                    "relu": nn.ReLU(),
                    "out": nn.Linear(14, 3),
                }
            )
            with torch.no_grad():
                self.net["conv"].weight[0] = 0

        def step(self, x):
            x = self.net["sparse"](self.net["dendrites"](x, torch.zeros(2)))
            return self.net["out"](self.net["relu"](self.net["conv"](x[:, None])).flatten(1))

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.step(batch[0])

    log = SparsityLogger()
    validate(tmp_path, Mixed(), log)
    weights = {
        layer: figures["weight_sparsity"] for layer, figures in log.values.items() if "weight_sparsity" in figures
    }
    expected = {"net.dendrites": 0.5, "net.sparse": 0.75, "net.conv": 0.5, "net.out": 0.0}
    assert weights == pytest.approx(expected)
    assert [layer for layer, figures in log.values.items() if "activation_sparsity" in figures] == ["net.relu"]


def test_a_weight_that_is_computed(tmp_path):
    pruned = nn.Linear(6, 3)
    nn.utils.parametrize.register_parametrization(pruned, "weight", nn.Threshold(0.0, 0.0))
    log = SparsityLogger()
    validate(tmp_path, Net(pruned), log)
    assert log.values["net"]["weight_sparsity"] == pytest.approx((pruned.weight == 0).float().mean().item())


def test_a_unit_of_an_image_is_a_channel(tmp_path):
    net = nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(10, 3))
    log = SparsityLogger()
    validate(tmp_path, Net(net), log)
    with torch.no_grad():
        images = net[:3](torch.cat([inputs(j) for j in range(3)]))  # (B, 5, 1, 2)
    assert_figures(log.values["net.2"], by_hand(images.movedim(1, -1).flatten(0, -2)))
    net[2] = KWinners(2, dim=1)
    validate(tmp_path, Net(net), log)
    assert log.values["net.2"]["activation_sparsity"] == pytest.approx(3 / 5)


def test_a_unit_of_a_sequence_is_a_feature(tmp_path):
    net = nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Linear(2, 5), nn.ReLU(), nn.Flatten(), nn.Linear(15, 3))
    log = SparsityLogger()
    validate(tmp_path, Net(net), log)
    with torch.no_grad():
        outputs = net[:3](torch.cat([inputs(j) for j in range(3)]))
    assert_figures(log.values["net.2"], by_hand(outputs.flatten(0, 1)))


def test_layers_narrow_it(tmp_path):
    net = nn.Sequential(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 3)
    )
    log = SparsityLogger(layers=["net.0"])
    validate(tmp_path, Net(net), log)
    assert list(log.values) == ["net.0.1", "net.0.0"]
    log = SparsityLogger(layers=["net.1.1"])
    validate(tmp_path, Net(net), log)
    assert list(log.values) == ["net.1.1"]


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_an_unknown_layer_names_the_nearest(tmp_path, stage):
    run = getattr(trainer(tmp_path, [SparsityLogger(layers=["net.11"])]), stage)
    with pytest.raises(ValueError, match=r"ReluNet has no layer 'net.11'. Did you mean 'net.1'\?"):
        run(ReluNet(), Tasks())


def test_one_loader_is_the_current_task(tmp_path):
    class Told(Tasks):
        current_task = 4

    module, log = ReluNet(), SparsityLogger()
    trainer(tmp_path, [log]).validate(module, Told(1), verbose=False)
    with torch.no_grad():
        expected = by_hand(module.net[:2](inputs(0)))
    assert_figures(log.values["net.1"], {f"{name}/task_4": value for name, value in expected.items()})
    assert_figures(log.values["net.1"], expected)
    validate(tmp_path, module, log, tasks=1)  # and where nobody tells the task, there is no task
    assert set(log.values["net.1"]) == {"activation_sparsity", "dead_units", "duty_cycle_entropy"}


def test_a_stranger_tells_the_task(tmp_path):
    log = SparsityLogger(task=lambda trainer: trainer.current_epoch + 2)
    trainer(tmp_path, [log], epochs=2).fit(ReluNet(), Tasks(1))
    assert {name for name in log.values["net.1"] if "task" in name} == {
        f"{name}/task_3" for name in ("activation_sparsity", "dead_units", "duty_cycle_entropy")
    }


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_half_precision_counts_exactly(tmp_path, precision):
    """Half a million positive and negative numbers: 16 bits count exactly to 256 or 2048, and float16 ends at 65504."""
    images = torch.randn(2, 4, 256, 256)
    net = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4 * 256 * 256, 1))
    log = SparsityLogger(layers=["net.0"])
    data = DataLoader(TensorDataset(images, torch.zeros(2)), batch_size=2)
    trainer(tmp_path, [log], precision=precision).validate(Net(net), data, verbose=False)
    assert log.values["net.0"]["activation_sparsity"] == pytest.approx((images <= 0).double().mean().item(), abs=1e-7)


def test_a_context_of_a_wrong_type_is_refused_by_the_layer(tmp_path):
    class Number(ReluNet):
        def __init__(self):
            super().__init__()
            self.layer = ActiveDendriteLinear(6, 8, context_dim=2, num_segments=2)

        def validation_step(self, batch, batch_idx):
            self.layer(batch[0], "task")

    messages = []
    for callbacks in ([], [SparsityLogger()]):
        with pytest.raises(TypeError) as error:
            validate(tmp_path, Number(), *callbacks, tasks=1)
        messages.append(str(error.value))
    assert messages[0] == messages[1] and "context" in messages[0]


def test_each_validation_counts_anew(tmp_path):
    figures = []

    class History(Callback):
        def on_validation_end(self, trainer, pl_module):
            if trainer.sanity_checking:
                assert not any(key.startswith("sparsity") for key in trainer.callback_metrics)
                return
            figures.append(trainer.callback_metrics["sparsity/net.1/activation_sparsity"].item())
            with torch.no_grad():
                expected = by_hand(torch.cat([pl_module.net[:2](inputs(j)) for j in range(3)]))
            assert figures[-1] == pytest.approx(expected["activation_sparsity"], abs=1e-6)

    trainer(tmp_path, [SparsityLogger(), History()], num_sanity_val_steps=1).fit(ReluNet(), Tasks())
    assert len(set(figures)) > 1


def test_the_network_is_as_it_was(tmp_path):
    module = ReluNet()
    before = pickle.dumps(module.net)
    validate(tmp_path, module, SparsityLogger())
    assert pickle.dumps(module.net) == before
    other = copy.deepcopy(module)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


def test_training_is_the_same_with_and_without(tmp_path):
    weights = []
    for callbacks in (
        [],
        [SparsityLogger(), ForgettingLogger(task=lambda t: t.current_epoch, verbose=False, pictures=False)],
    ):
        torch.manual_seed(1)
        module = ReluNet()
        trainer(tmp_path, callbacks).fit(module, Tasks())
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(*weights)


def test_in_the_csv_beside_forgetting(tmp_path):
    log = ForgettingLogger(task=lambda trainer: trainer.current_epoch, verbose=False, pictures=False)
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, [SparsityLogger(), log], logger=logger).fit(ReluNet(), Tasks())
    with open(tmp_path / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["sparsity/net.1/activation_sparsity"]]
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    for row in rows:
        for name in ("activation_sparsity", "dead_units", "duty_cycle_entropy"):
            assert 0 <= float(row[f"sparsity/net.1/{name}"]) <= 1
            assert 0 <= float(row[f"sparsity/net.1/{name}/task_2"]) <= 1
        assert float(row["sparsity/net.0/weight_sparsity"]) == 0


def test_units_that_the_context_leaves_out_count_as_zero(tmp_path):
    log = SparsityLogger()
    _, model = dendrites(tmp_path, log, winners="context")
    for number, units in enumerate((40, 30)):
        active = {len(model.mlp.active_units(model.context.prototypes[task])[number]) for task in range(3)}
        expected = 1 - active.pop() / units
        figures = log.values[f"model.mlp.activations.{number}"]
        assert expected >= 0.75 and not active
        for task in ("", "/task_0", "/task_1", "/task_2"):
            assert figures[f"activation_sparsity{task}"] == pytest.approx(expected)
            assert 0 < figures[f"dead_units{task}"] <= expected + 1e-6


class TwoOptimizers(ReluNet):
    """Each batch takes a step of both, which Trainer.global_step counts as two."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(loss, retain_graph=True)
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (self.net[0], self.net[2])]


@pytest.mark.parametrize("module", [ReluNet, TwoOptimizers])
def test_its_rows_stand_at_the_steps_of_lightning(tmp_path, module):
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, [SparsityLogger()], logger=logger).fit(module(), Tasks())
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    ours = [row["step"] for row in rows if row["sparsity/net.1/activation_sparsity"]]
    assert ours == [row["step"] for row in rows if row["val/acc/dataloader_idx_0"]]
    assert len(ours) == 3


def test_a_compiled_network_is_counted_too(tmp_path):
    module, log = ReluNet(), SparsityLogger()
    plain = copy.deepcopy(module)
    module.net = torch.compile(module.net, backend="eager")
    for _ in range(2):
        trainer(tmp_path, [log], epochs=1, num_sanity_val_steps=1).fit(module, Tasks())
        plain.load_state_dict({k.replace("_orig_mod.", ""): v for k, v in module.state_dict().items()})
        with torch.no_grad():
            expected = by_hand(torch.cat([plain.net[:2](inputs(j)) for j in range(3)]))
        assert_figures(log.values["net.1"], expected)
    assert set(log.values) == {"net.0", "net.1", "net.2"}


def test_layers_of_a_compiled_network_are_named_as_before(tmp_path):
    module, log = ReluNet(), SparsityLogger(layers=["net.1"])
    module.net = torch.compile(module.net, backend="eager")
    validate(tmp_path, module, log)
    assert list(log.values) == ["net.1"] and log.values["net.1"]["activation_sparsity"] > 0
    with pytest.raises(ValueError, match=r"no layer 'net._orig_mod.1'. Did you mean 'net.1'\?"):
        validate(tmp_path, module, SparsityLogger(layers=["net._orig_mod.1"]))


def test_a_finished_run_that_is_resumed_has_its_values(tmp_path):
    log, path = SparsityLogger(), tmp_path / "last.ckpt"
    first = trainer(tmp_path, [log])
    first.fit(ReluNet(), Tasks())
    first.save_checkpoint(path)
    resumed = SparsityLogger()
    trainer(tmp_path, [resumed]).fit(ReluNet(), Tasks(), ckpt_path=path, weights_only=True)
    assert resumed.values == log.values and log.values["net.1"]["activation_sparsity"] > 0
    other = SparsityLogger(layers=["net.1"])  # of other layers, so another callback's state
    with pytest.warns(UserWarning, match="saved in checkpoint but not used|Be aware that when using `ckpt_path`"):
        trainer(tmp_path, [other]).fit(ReluNet(), Tasks(), ckpt_path=path, weights_only=True)
    assert other.values == {}


def test_layers_that_never_ran_are_not_passed_over_in_silence(tmp_path):
    module, log = ReluNet(), SparsityLogger()
    module.forgotten, module.net = nn.ReLU(), nn.Linear(6, 3)
    with pytest.warns(UserWarning, match=r"Expected the modules \['forgotten'\] to be called, but none of them ran"):
        validate(tmp_path, module, log)
    assert log.values == {"net": {"weight_sparsity": 0.0}}


def test_a_network_without_layers(tmp_path):
    class Empty(LightningModule):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("val/acc", 0.5)

    log = SparsityLogger()
    validate(tmp_path, Empty(), log)
    assert log.values == {}
