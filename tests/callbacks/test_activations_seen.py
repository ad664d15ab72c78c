"""Activations wherever a network has them, each against a count of its own; nothing changed, nothing left behind."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn.modules import module as modules
from torch.nn.utils import parametrize, prune
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric

from dendrite_zoo.callbacks import SparsityLogger, SubnetworkLogger
from dendrite_zoo.callbacks.call_watcher import CallWatcher
from dendrite_zoo.callbacks.layer_selection import weights_of
from tests.callbacks.strangers import ReluNet, Tasks, loader, trainer
from tests.callbacks.test_sparsity import Net, assert_figures, by_hand, inputs, validate

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
]
METRICS = {"activation_sparsity", "dead_units", "duty_cycle_entropy"}


def everything():
    return torch.cat([inputs(j) for j in range(3)])  # as three tasks are validated


def seen(log):
    """Layers with activations."""
    return [layer for layer, values in log.values.items() if "activation_sparsity" in values]


def watch(net, *args, layers=None, **kwargs):
    """Layer -> metrics of one call."""
    counts = {}
    watcher = CallWatcher(net, layers)
    with torch.no_grad(), watcher:
        net(*args, **kwargs)
    for place, active, samples in watcher.seen:
        counts.setdefault(place.layer, []).append((active.tolist(), samples))
    return counts


class MLP(nn.Module):
    """Two linear layers with a function between."""

    def __init__(self, function, width=16):
        super().__init__()
        self.a, self.b, self.function = nn.Linear(6, width), nn.Linear(width, 3), function

    def forward(self, x):
        return self.b(self.function(self.a(x)))


FUNCTIONS = {
    "F.relu": (F.relu, "relu"),
    "F.relu in place": (lambda x: F.relu(x, inplace=True), "relu"),
    "F.relu by keyword": (lambda x: F.relu(input=x), "relu"),
    "torch.relu": (torch.relu, "relu"),
    "torch.relu_": (torch.relu_, "relu"),
    "x.relu()": (lambda x: x.relu(), "relu"),
    "F.gelu": (F.gelu, "gelu"),
    "F.silu": (F.silu, "silu"),
    "F.leaky_relu": (F.leaky_relu, "leaky_relu"),
    "F.relu6": (F.relu6, "relu6"),
    "F.threshold": (lambda x: F.threshold(x, 0.5, 0.0), "threshold"),
    "F.softshrink": (F.softshrink, "softshrink"),
    "torch.tanh": (torch.tanh, "tanh"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_in_a_forward(tmp_path, name):
    function, layer = FUNCTIONS[name]
    module, log = Net(MLP(function)), SparsityLogger()
    validate(tmp_path, module, log)
    with torch.no_grad():
        outputs = [function(module.net.a(inputs(j))) for j in range(3)]
    assert seen(log) == [f"net.{layer}"]
    assert_figures(log.values[f"net.{layer}"], by_hand(torch.cat(outputs)))
    for j in range(3):
        expected = {f"{metric}/task_{j}": value for metric, value in by_hand(outputs[j]).items()}
        assert_figures(log.values[f"net.{layer}"], expected)


class InTheModule(ReluNet):
    """All in the LightningModule: layers, functions in its forward, and a hinge in its step."""

    def __init__(self):
        super().__init__()
        del self.net
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)) + 0.1)))

    net = forward

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        logits = self(batch[0])
        self.log("hinge", F.relu(1 - logits).mean(), batch_size=len(logits))
        self.log("probability", torch.sigmoid(-logits).mean(), batch_size=len(logits))


def test_functions_of_the_module_itself_but_not_of_its_loss(tmp_path):
    module, log = InTheModule(), SparsityLogger()
    validate(tmp_path, module, log)
    with torch.no_grad():
        first = F.relu(module.a(everything()))
        second = F.relu(module.b(first + 0.1))
    assert seen(log) == ["relu", "relu#2"]
    assert_figures(log.values["relu"], by_hand(first))
    assert_figures(log.values["relu#2"], by_hand(second))


def test_a_step_without_a_forward(tmp_path):
    class Encoder(InTheModule):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            hidden = F.relu(self.a(batch[0]))  # of a layer
            F.relu(1 - self.c(hidden))  # of a loss

    module, log = Encoder(), SparsityLogger()
    validate(tmp_path, module, log)
    assert seen(log) == ["relu"]
    with torch.no_grad():
        assert_figures(log.values["relu"], by_hand(F.relu(module.a(everything()))))


def test_losses_are_no_layers(tmp_path):
    class Hinge(nn.Module):
        def forward(self, logits):
            return F.relu(1 - logits).mean()

    class Module(ReluNet):
        def __init__(self):
            super().__init__()
            self.loss = Hinge()

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.loss(self.net(batch[0]))

    log = SparsityLogger()
    validate(tmp_path, Module(), log)
    assert seen(log) == ["net.1"]


def test_a_metric_and_its_network_are_no_layers(tmp_path):
    class Features(Metric):
        """As FID has a network."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(3, 5), nn.ReLU())

        def update(self, logits):
            self.inner(logits.sigmoid())

        def compute(self):
            return torch.zeros(())

    class Module(ReluNet):
        def __init__(self):
            super().__init__()
            self.fid = Features()

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.fid(self.net(batch[0]))

    log = SparsityLogger()
    validate(tmp_path, Module(), log)
    assert list(log.values) == ["net.1", "net.0", "net.2"]


class Twice(nn.Module):
    """One ReLU module behind two layers."""

    def __init__(self, width=4):
        super().__init__()
        self.a, self.b, self.relu = nn.Linear(6, 4), nn.Linear(4, width), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.b(self.relu(self.a(x))))


@pytest.mark.parametrize("width", [4, 7])
def test_one_module_used_twice_is_two_layers(tmp_path, width):
    module, log = Net(Twice(width)), SparsityLogger()
    alive = torch.tensor([[1.0, 1.0, -1.0, -1.0], [-1.0, 1.0, 1.0, -1.0]])
    for layer, bias in zip((module.net.a, module.net.b), alive, strict=True):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, -1.0)
        layer.bias.data[:4] = bias
    validate(tmp_path, module, log)
    assert seen(log) == ["net.relu", "net.relu#2"]
    for name, units in (("net.relu", 4), ("net.relu#2", width)):
        share = 1 - 2 / units
        expected = {"activation_sparsity": share, "dead_units": share, "duty_cycle_entropy": 0.0}
        assert_figures(log.values[name], expected)


def test_places_of_one_function_and_of_one_module():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 5)])

        def forward(self, x):
            for layer in self.layers:
                x = F.relu(layer(x))
            return torch.cat([F.relu(x), F.relu(-x)], dim=1)

    x, net = torch.randn(9, 6), Loop()
    watcher = CallWatcher(net)
    for _ in range(2):
        with torch.no_grad(), watcher:
            net(x)
    places = [seen.place for seen in watcher.seen]
    assert places[:4] == places[4:] and len(set(places)) == 4  # the same in each batch
    relu = nn.ReLU()
    assert list(watch(nn.Sequential(nn.Linear(6, 6), relu, nn.Linear(6, 6), relu), x)) == ["1"]
    watcher = CallWatcher(net := nn.Sequential(nn.Linear(6, 6), relu, nn.Linear(6, 6), relu))
    with watcher:
        net(x)
    assert len({seen.place for seen in watcher.seen}) == 2


def test_a_module_of_two_parents_has_a_name_in_each():
    shared = nn.ReLU()
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), shared) for _ in range(2)))
    assert list(watch(blocks, torch.randn(4, 6))) == ["0.1", "1.1"]


def test_a_cell_in_a_loop_is_one_layer():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.weight = nn.Linear(9, 3), nn.Parameter(torch.randn(9, 3))

        def forward(self, x):
            first = second = x.new_zeros(len(x), 3)
            for step in x.unbind(1):
                first = F.relu(self.cell(torch.cat([step, first], 1)))
                second = F.relu(torch.cat([step, second], 1) @ self.weight)
            return first + second

    counts = watch(net := Recurrent(), torch.randn(4, 5, 6))
    assert list(counts) == ["relu"] and len(counts["relu"]) == 10
    log = CallWatcher(net)
    with log:
        net(torch.randn(4, 5, 6))
    assert len({seen.place for seen in log.seen}) == 2


def test_a_gan_whose_discriminator_runs_twice(tmp_path):
    class Gan(LightningModule):
        def __init__(self):
            super().__init__()
            self.generator, self.discriminator = (
                MLP(F.relu),
                nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.1), nn.ReLU()),
            )

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            real, fake = batch[0][:, :3], self.generator(batch[0])
            loss = F.relu(1 - self.discriminator(real)).mean() + F.relu(1 + self.discriminator(fake)).mean()
            self.log("loss", loss, batch_size=len(real))

    module, log = Gan(), SparsityLogger()
    validate(tmp_path, module, log)
    x = everything()
    with torch.no_grad():
        both = torch.cat([module.discriminator(x[:, :3]), module.discriminator(module.generator(x))])
        hidden = F.relu(module.generator.a(x))
    assert seen(log) == ["generator.relu", "discriminator.1", "discriminator.2"]
    assert_figures(log.values["discriminator.2"], by_hand(both))
    assert_figures(log.values["generator.relu"], by_hand(hidden))
    assert log.values["discriminator.1"]["activation_sparsity"] == 0


class Padded(nn.Module):
    """A transformer encoder over three tokens of width 2, some of them padding."""

    def __init__(self, activation="relu", masked=True, heads=2, **kwargs):
        super().__init__()
        layer = nn.TransformerEncoderLayer(2, heads, 16, activation=activation, **{"batch_first": True, **kwargs})
        with warnings.catch_warnings(action="ignore"):  # on layers that have no fused function
            self.encoder, self.head, self.masked = nn.TransformerEncoder(layer, 2), nn.Linear(2, 3), masked

    def forward(self, x):
        mask = torch.zeros(len(x), 3, dtype=torch.bool)
        mask[::2, 2] = self.masked
        return self.head(self.encoder(x.view(-1, 3, 2), src_key_padding_mask=mask if self.masked else None).mean(1))


ENCODERS = {
    "relu": {},
    "gelu": {"activation": "gelu"},
    "module": {"activation": nn.ReLU()},
    "no mask": {"masked": False},
    "sequence first": {"batch_first": False, "masked": False},
    "norm first": {"norm_first": True},
    "odd heads": {"heads": 1},
}


@pytest.mark.parametrize("case", ENCODERS)
def test_transformer_layers_in_eval_are_seen_and_give_what_they_gave(tmp_path, case):
    torch.manual_seed(0)
    net = Padded(**ENCODERS[case])

    class Module(Net):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.outputs = [*getattr(self, "outputs", []), self.net(batch[0]).clone()]

    plain, module, log = Module(copy.deepcopy(net)), Module(net), SparsityLogger()
    validate(tmp_path, plain)
    validate(tmp_path, module, log)
    assert all(map(torch.equal, plain.outputs, module.outputs))

    part = {"gelu": "gelu", "module": "activation"}.get(case, "relu")
    names = [f"net.encoder.layers.{n}.{part}" for n in range(2)]
    assert seen(log) == names
    # the tokens that the fused function sees: all, but for padding where it makes nested tensors
    nested = case in ("relu", "gelu", "module")
    hidden: dict[int, list] = {0: [], 1: []}
    handles = [
        layer.linear1.register_forward_hook(lambda module, args, output, n=n: hidden[n].append(output))
        for n, layer in enumerate(net.encoder.layers)
    ]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad():
        for j in range(3):
            for x in inputs(j).split(4):
                net.eval()(x)
    torch.backends.mha.set_fastpath_enabled(fast)
    for handle in handles:
        handle.remove()
    for n, name in enumerate(names):
        rows = []
        for output in hidden[n]:
            keep = torch.ones(output.shape[:2], dtype=torch.bool)
            keep[::2, 2] = not nested
            rows.append(output[keep])
        outputs = (F.gelu if case == "gelu" else F.relu)(torch.cat(rows))
        assert_figures(log.values[name], by_hand(outputs))


def test_decoders_and_attention():
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(4, 2, 8, batch_first=True).eval()
    x, memory = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    with torch.no_grad():
        plain = layer(x, memory)
        watcher = CallWatcher(layer)
        with watcher:
            watched = layer(x, memory)
    assert torch.equal(plain, watched)
    assert [(s.place.layer, s.samples) for s in watcher.seen] == [("relu", 6)]
    outputs = []
    handle = layer.linear1.register_forward_hook(lambda module, args, output: outputs.append(output.relu()))
    layer(x, memory)
    handle.remove()
    assert watcher.seen[0].active.tolist() == (outputs[0] != 0).sum((0, 1)).tolist()


def test_activation_modules_of_others():
    """As Hugging Face has them: a module without parts that calls a function."""

    class GELUActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = F.gelu

        def forward(self, x):
            return self.act(x)

    class QuickGELU(nn.Module):
        def forward(self, x):
            return (x * torch.sigmoid(1.702 * x)).clamp(min=0)

    x = torch.randn(8, 6)
    for activation in (GELUActivation(), QuickGELU()):
        net = nn.Sequential(nn.Linear(6, 4), activation)
        with torch.no_grad():
            assert watch(net, x) == {"1": [((net(x) != 0).sum(0).tolist(), 8)]}


UNITS = {
    "conv1d": (nn.Sequential(nn.Conv1d(3, 5, 2), nn.ReLU()), (4, 3, 7), 1),
    "conv1d and norm": (nn.Sequential(nn.Conv1d(3, 5, 2), nn.BatchNorm1d(5), nn.ReLU()), (4, 3, 7), 1),
    "conv2d": (nn.Sequential(nn.Conv2d(3, 5, 2), nn.ReLU()), (4, 3, 7, 7), 1),
    "one image": (nn.Sequential(nn.Conv2d(3, 5, 2), nn.ReLU()), (3, 7, 7), 0),
    "conv3d": (nn.Sequential(nn.Conv3d(3, 5, 2), nn.ReLU()), (2, 3, 4, 4, 4), 1),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.ReLU()), (4, 3, 7, 7), 1),
    "norm of groups": (nn.Sequential(nn.GroupNorm(1, 3), nn.ReLU()), (4, 3, 7, 7), 1),
    "sequence": (nn.Sequential(nn.Linear(3, 5), nn.ReLU()), (4, 7, 3), 2),
    "channels last": (nn.Sequential(nn.Linear(3, 5), nn.ReLU()), (4, 7, 7, 3), 3),
    "one vector": (nn.Sequential(nn.Linear(3, 5), nn.ReLU()), (3,), 0),
    "flattened": (nn.Sequential(nn.Conv2d(3, 5, 2), nn.Flatten(), nn.ReLU()), (4, 3, 7, 7), 1),
    "nothing before": (nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(3 * 7 * 7, 5)), (4, 3, 7, 7), 1),
    "rearranged": (nn.Sequential(nn.Linear(3, 6), nn.Unflatten(2, (2, 3)), nn.ReLU()), (4, 7, 3), 1),
}


@pytest.mark.parametrize("case", UNITS)
def test_what_a_unit_is(case):
    torch.manual_seed(0)
    net, shape, dim = UNITS[case]
    x = torch.randn(shape)
    outputs = []
    relu = next(part for part in net if isinstance(part, nn.ReLU))
    handle = relu.register_forward_hook(lambda module, args, output: outputs.append(output))
    ((counted,),) = watch(net, x).values()
    handle.remove()
    units = outputs[0].movedim(dim, 0)
    assert counted == ([int((unit != 0).sum()) for unit in units], units[0].numel())


def test_checkpointed_blocks_count_once(tmp_path):
    class Module(Net):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            with torch.enable_grad():
                hidden = checkpoint(self.net, batch[0].requires_grad_(), use_reentrant=False)
                hidden.sum().backward()
            self.zero_grad()

    module, log = Module(MLP(F.relu)), SubnetworkLogger()
    counts = []
    log.on_counted = lambda trainer, pl_module, found: counts.append(found)  # type: ignore[method-assign]
    run = trainer(tmp_path, [log], inference_mode=False)
    run.validate(module, Tasks(), verbose=False)
    assert counts[0]["net.relu"].samples.unique().tolist() == [10]
    with torch.no_grad():
        expected = (F.relu(module.net.a(inputs(1))) != 0).sum(0)
    assert counts[0]["net.relu"].active[1].tolist() == expected.tolist()


@pytest.mark.parametrize("how", ["fullgraph", "in place", "function", "compiled before"])
def test_compiled_networks_count_as_they_are_written(tmp_path, how):
    torch.compiler.reset()
    net = nn.Sequential(MLP(F.relu, 8), nn.ReLU())
    plain = copy.deepcopy(net)
    module, log = Net(net), SparsityLogger()
    if how == "in place":
        net.compile(backend="eager", fullgraph=True)
    elif how == "function":
        net[0].forward = torch.compile(net[0].forward, backend="eager", fullgraph=True)
    else:
        module.net = torch.compile(net, backend="eager", fullgraph=True)
    if how == "compiled before":
        with torch.inference_mode():
            module.eval().net(inputs(0)[:4])
    validate(tmp_path, module, log)
    with torch.no_grad():
        hidden = F.relu(plain[0].a(everything()))
        assert_figures(log.values["net.0.relu"], by_hand(hidden))
        assert_figures(log.values["net.1"], by_hand(plain(everything())))
    assert left_behind() == NOTHING
    with torch.inference_mode():  # and it is compiled again afterwards
        assert torch.equal(module.net(inputs(0)), plain(inputs(0)))


def test_training_through_a_compiled_network_is_the_same_with_and_without(tmp_path):
    weights = []
    for callbacks in ([], [SparsityLogger(), SubnetworkLogger(layers=["net.*"])]):
        torch.compiler.reset()
        torch.manual_seed(1)
        module = Net(torch.compile(MLP(F.relu), backend="eager"))
        trainer(tmp_path, callbacks, epochs=2, num_sanity_val_steps=1).fit(module, Tasks())
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(*weights)


def test_training_with_random_weights_is_the_same_with_and_without(tmp_path):
    class Drop(nn.Module):
        """Weights that are drawn at each look at them, in eval mode too."""

        def forward(self, weight):
            return weight * (torch.rand_like(weight) > 0.3)

    class Module(Net):
        def on_validation_model_eval(self):
            self.train()  # dropout stays on, and spectral norms go on to iterate

    weights = []
    for callbacks in ([], [SparsityLogger(), SubnetworkLogger()]):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        parametrize.register_parametrization(net[0], "weight", Drop())
        nn.utils.parametrizations.spectral_norm(net[3])
        module = Module(net)
        trainer(tmp_path, callbacks, epochs=2).fit(module, Tasks())
        state = module.state_dict().values()
        weights.append(torch.cat([value.detach().flatten() for value in state]))
    assert torch.equal(*weights)


def left_behind():
    hooks = sum(len(table) for name, table in vars(modules).items() if name.startswith("_global_forward"))
    return hooks, torch._C._len_torch_function_stack(), torch._dynamo.eval_frame._stance.stance


NOTHING = (0, 0, "default")
WATCHED = (8, 0, "force_eager")  # by two callbacks; the mode is entered in forwards only, as the step has no layer


class Watched(ReluNet):
    """Sees what watches it, and fails when asked to."""

    fails = None

    def __init__(self):
        super().__init__()
        self.found = {}

    def training_step(self, batch, batch_idx):
        self.found["train"] = left_behind()
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.found["validate"] = left_behind()
        if self.fails == "step":
            raise KeyError("in the step")
        if self.fails == "forward":
            self.net(batch[0][:, :2])
        super().validation_step(batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self):
        self.found["end"] = left_behind()
        if self.fails == "end":
            raise KeyError("at the end")


def test_the_network_is_watched_in_a_batch_of_validation_only(tmp_path):
    module = Watched()
    before = {name: set(vars(part)) for name, part in module.named_modules()}
    trainer(tmp_path, [SparsityLogger(), SubnetworkLogger()], num_sanity_val_steps=1).fit(module, Tasks())
    assert module.found == {"train": NOTHING, "validate": WATCHED, "end": NOTHING}
    assert left_behind() == NOTHING
    assert all(set(vars(part)) == before[name] for name, part in module.net.named_modules(prefix="net"))


@pytest.mark.parametrize("stage", ["fit", "validate"])
@pytest.mark.parametrize("fails", ["step", "forward", "end"])
def test_nothing_is_left_after_a_failure(tmp_path, stage, fails):
    module = Watched()
    module.fails = fails
    with pytest.raises((KeyError, RuntimeError)):
        getattr(trainer(tmp_path, [SparsityLogger(), SubnetworkLogger()]), stage)(module, Tasks())
    assert module.found["validate"] == WATCHED and left_behind() == NOTHING


def test_other_modes_stay_where_they_are():
    """A mode that is entered between stays in its place, also around a fused layer, where ours steps aside."""
    net = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    x, found = torch.randn(2, 3, 4), []
    with torch.inference_mode():
        plain = net(x)
        device = torch.device("cpu")
        first, second = CallWatcher(net), CallWatcher(net)
        with device:
            first.__enter__()
            second.__enter__()
            with torch.device("cpu"):
                found.append(net(x))
            first.__exit__()  # as callbacks are called: in the order in which they began
            second.__exit__()
            assert torch._C._len_torch_function_stack() == 1
    assert torch.equal(found[0], plain) is torch.equal(net(x), plain)
    assert left_behind() == NOTHING
    assert [s.place.layer for s in first.seen] == [s.place.layer for s in second.seen] == ["relu"]


def test_what_fails_and_is_caught_counts_for_nothing():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(5, 3))
            self.relu = nn.ReLU()

        def forward(self, x):
            try:
                return self.net(x)
            except RuntimeError:
                return self.relu(x)

    x = torch.randn(5, 6)
    assert watch(Careful(), x) == {"relu": [((x > 0).sum(0).tolist(), 5)]}


def test_functional_calls_disturb_nothing_and_are_said(tmp_path):
    class Ensemble(ReluNet):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            weights = {name: torch.stack([p, -p]) for name, p in self.net.named_parameters()}
            torch.func.vmap(lambda w: torch.func.functional_call(self.net, w, batch[0]))(weights)

    log = SparsityLogger()
    with pytest.warns(UserWarning, match=r"outputs of \['net.1'\] were not counted"):
        validate(tmp_path, Ensemble(), log)
    assert seen(log) == []


def test_scripted_modules_are_said(tmp_path):
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        net = torch.jit.script(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    log = SparsityLogger()
    with pytest.warns(UserWarning, match="What runs inside 'net' is not seen") as said:
        run = trainer(tmp_path, [log])
        for _ in range(2):
            run.validate(Net(net), Tasks(), verbose=False)
    assert sum("not seen" in str(warning.message) for warning in said) == 1  # once


def test_where_nothing_is_seen_it_is_said(tmp_path):
    class Module(Net):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            hidden = self.net[0](batch[0])
            self.net[1](hidden * (hidden > 0))

    class Outside(ReluNet):
        def __init__(self):
            super().__init__()
            self.net, self.a, self.b = None, nn.Linear(6, 8), nn.Linear(8, 3)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.b(F.relu(self.a(batch[0]) + 0.5))

    net = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    with pytest.warns(UserWarning, match="Expected activation modules or functions in the forwards of Module"):
        validate(tmp_path, Module(net), SparsityLogger())
    with pytest.warns(UserWarning, match=r"\['relu'\] were called outside of all forwards"):
        validate(tmp_path, Outside(), SparsityLogger())
    recurrent = nn.Sequential(nn.Unflatten(1, (3, 2)), nn.LSTM(2, 4))
    with pytest.warns(UserWarning, match="inside a recurrent layer"):
        validate(tmp_path, Recurrent(recurrent), SparsityLogger())


class Recurrent(Net):
    def __init__(self, net):
        super().__init__(net)
        self.head = nn.Linear(4, 3)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.head(self.net(batch[0])[0])


def test_mixed_precision_counts_what_is_computed_in_it(tmp_path):
    class Module(Net):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.hidden = [*getattr(self, "hidden", []), F.relu(self.net.a(batch[0]))]
            super().validation_step(batch, batch_idx, dataloader_idx)

    module, log = Module(MLP(F.relu)), SparsityLogger(layers=["net"])
    trainer(tmp_path, [log], precision="bf16-mixed").validate(module, Tasks(), verbose=False)
    assert module.hidden[0].dtype == torch.bfloat16
    assert_figures(log.values["net.relu"], by_hand(torch.cat(module.hidden)))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["net.0"], ["net.0.relu", "net.0.a", "net.0.b"]),
        ("net.0", ["net.0.relu", "net.0.a", "net.0.b"]),
        (["net.0.relu"], ["net.0.relu"]),
        (["net.?.a", "*.relu"], ["net.0.relu", "net.0.a"]),
        ([nn.ReLU], ["net.1"]),
        ([nn.ReLU, nn.Linear], ["net.1", "net.0.a", "net.0.b"]),
        ([MLP], ["net.0.relu", "net.0.a", "net.0.b"]),
        (nn.Flatten, ["net.2"]),
        (["net.relu#2"], []),
    ],
)
def test_layers_are_names_patterns_or_classes(tmp_path, layers, expected):
    log = SparsityLogger(layers=layers)
    validate(tmp_path, Net(nn.Sequential(MLP(F.relu), nn.ReLU(), nn.Flatten())), log)
    assert list(log.values) == expected
    assert SparsityLogger(layers=layers).state_key == log.state_key != SparsityLogger().state_key


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["net.11"], r"ReluNet has no layer 'net.11'. Did you mean 'net.1'\?"),
        (["nett.*"], "has no layer 'nett.*'"),
        ([nn.GELU], "has no layer 'GELU'"),
        (["nett.relu"], "has no layer 'nett.relu'"),
        (["net.rellu"], "has no layer 'net.rellu'"),
    ],
)
def test_layers_that_are_not_there(tmp_path, layers, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, [SparsityLogger(layers=layers)]).fit(ReluNet(), Tasks())


def test_layers_that_are_made_in_the_first_batch(tmp_path):
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.lazy, self.unused, self.block = nn.LazyLinear(8), nn.LazyLinear(8), None

        def forward(self, x):
            if self.block is None:
                self.block = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
            return self.block(F.relu(self.lazy(x)))

    module, log = Net(Late()), SparsityLogger()
    validate(tmp_path, module, log)
    assert list(log.values) == ["net.relu", "net.block.1", "net.lazy", "net.block.0"]
    with torch.no_grad():
        assert_figures(log.values["net.block.1"], by_hand(module.net(everything())))


def zeros(*tensors):
    return sum(int((t == 0).sum()) for t in tensors) / sum(t.numel() for t in tensors)


def test_weights_of_every_kind(tmp_path):
    class Kinds(nn.Module):
        def __init__(self):
            super().__init__()
            self.pruned = nn.Linear(6, 8)
            prune.random_unstructured(self.pruned, "weight", amount=0.25)
            self.parametrized = nn.Conv1d(1, 4, 3)
            parametrize.register_parametrization(self.parametrized, "weight", nn.Threshold(0.0, 0.0))
            self.tied, self.frozen = nn.Linear(8, 6), nn.Linear(6, 8).requires_grad_(False)
            self.tied.weight = nn.Parameter(self.pruned.weight_orig.detach().T)
            self.embedding = nn.Embedding(5, 6)
            self.again = nn.Linear(6, 5)
            self.again.weight = self.embedding.weight
            self.attention, self.cross = nn.MultiheadAttention(6, 2), nn.MultiheadAttention(6, 2, kdim=3, vdim=4)
            self.lstm, self.cell, self.norm = nn.LSTM(6, 4, 2), nn.GRUCell(6, 4), nn.LayerNorm((2, 6))
            self.packed = nn.Linear(6, 2)
            self.packed.weight = nn.Parameter(torch.zeros(2, 6, dtype=torch.uint8), requires_grad=False)
            with torch.no_grad():
                self.embedding.weight[1] = 0
                self.frozen.weight[:2] = 0
                self.attention.in_proj_weight[:6] = 0
                self.attention.out_proj.weight[0] = 0
                self.cross.k_proj_weight.zero_()
                self.lstm.weight_hh_l1.zero_()
                self.cell.weight_ih.zero_()

        def forward(self, x):
            return F.relu(self.pruned(x))

    log, net = SparsityLogger(), Kinds()
    with pytest.warns(UserWarning, match="weights of 'net.packed' are packed as torch.uint8"):
        validate(tmp_path, Net(net), log)
    weights = {name: values["weight_sparsity"] for name, values in log.values.items() if "weight_sparsity" in values}
    cross = (net.cross.q_proj_weight, net.cross.k_proj_weight, net.cross.v_proj_weight)
    lstm = [w for name, w in net.lstm.named_parameters() if "weight" in name]
    expected = {
        "pruned": 12 / 48,
        "parametrized": zeros(net.parametrized.weight),
        "tied": 0.0,
        "frozen": 2 / 8,
        "again": 1 / 5,
        "attention": 1 / 3,
        "attention.out_proj": 1 / 6,
        "cross": zeros(*cross),
        "cross.out_proj": 0.0,
        "lstm": zeros(*lstm),
        "cell": zeros(net.cell.weight_ih, net.cell.weight_hh),
    }
    assert weights == pytest.approx({f"net.{name}": value for name, value in expected.items()})
    assert 0 < expected["parametrized"] < 1 and expected["lstm"] == pytest.approx(64 / (16 * 6 + 3 * 64))


def test_quantized_weights_are_counted_as_the_numbers_they_stand_for(tmp_path):
    with warnings.catch_warnings(action="ignore"):
        net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        quantized = torch.ao.quantization.quantize_dynamic(net, {nn.Linear})
    log = SparsityLogger()
    validate(tmp_path, Net(quantized), log)
    for name in ("0", "2"):
        weight = quantized[int(name)].weight().dequantize()
        assert log.values[f"net.{name}"]["weight_sparsity"] == pytest.approx(zeros(weight))
    assert weights_of(nn.Embedding(3, 2)) == weights_of(nn.ReLU()) == weights_of(nn.LazyLinear(2)) == []


def test_a_smooth_activation_is_never_zero(tmp_path):
    log = SparsityLogger()
    validate(tmp_path, Net(MLP(F.gelu)), log)
    expected = {"activation_sparsity": 0.0, "dead_units": 0.0, "duty_cycle_entropy": 0.0}
    assert {name: log.values["net.gelu"][name] for name in METRICS} == expected
    assert math.isclose(F.gelu(torch.tensor(-3.0)).item(), -0.00405, abs_tol=1e-4)


def test_a_dry_run_and_a_checkpoint(tmp_path):
    log = SparsityLogger(layers=[nn.ReLU])
    run = trainer(tmp_path, [log], fast_dev_run=True)
    run.fit(ReluNet(), Tasks())
    assert METRICS <= set(log.values["net.1"])
    run = trainer(tmp_path, [log], epochs=1)
    run.fit(ReluNet(), Tasks())
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = SparsityLogger(layers=[nn.ReLU])
    trainer(tmp_path, [again], epochs=1).fit(ReluNet(), Tasks(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert again.values == log.values


def test_images_through_a_network_with_one_relu_a_block(tmp_path):
    """A block as torchvision's ResNet has it, against a loop."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
            self.conv2, self.bn2, self.relu = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(inplace=True)

        def forward(self, x):
            out = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(out)) + x)

    class Images(Net):
        def validation_step(self, batch, batch_idx):
            self.net(batch[0])

    torch.manual_seed(0)
    x, block, log = torch.randn(6, 2, 5, 5), Block().eval(), SparsityLogger()
    data = DataLoader(TensorDataset(x, torch.zeros(6)), batch_size=4)
    trainer(tmp_path, [log]).validate(Images(block), data, verbose=False)
    with torch.no_grad():
        first = torch.relu(block.bn1(block.conv1(x)))
        second = torch.relu(block.bn2(block.conv2(first)) + x)
    for name, output in (("net.relu", first), ("net.relu#2", second)):
        assert_figures(log.values[name], by_hand(output.movedim(1, -1).flatten(0, -2)))


def test_batches_of_several_loaders_at_once_have_no_task(tmp_path):
    class Both(ReluNet):
        def validation_step(self, batch, batch_idx):
            for x, _ in batch:
                self.net(x)

    module, log, subnetworks = Both(), SparsityLogger(), SubnetworkLogger()
    loaders = CombinedLoader([loader(seed=100), loader(seed=101)], "max_size")
    with pytest.warns(UserWarning, match="SubnetworkLogger: Expected a validation loader for each task"):
        trainer(tmp_path, [log, subnetworks]).validate(module, loaders, verbose=False)
    assert METRICS == set(log.values["net.1"]) and subnetworks.win_rates == {}
    with torch.no_grad():
        assert_figures(log.values["net.1"], by_hand(module.net[:2](torch.cat([inputs(0), inputs(1)]))))


@pytest.mark.filterwarnings("ignore:.*dataloader_iter")
def test_a_step_that_takes_its_batches_itself(tmp_path):
    class Takes(ReluNet):
        def validation_step(self, dataloader_iter):
            self.net(next(dataloader_iter)[0][0])

    module, log = Takes(), SparsityLogger()
    validate(tmp_path, module, log)
    for j in range(3):
        with torch.no_grad():
            expected = by_hand(module.net[:2](inputs(j)))
        assert_figures(log.values["net.1"], {f"{metric}/task_{j}": value for metric, value in expected.items()})


def test_one_loader_after_another_is_not_taken_for_the_task_trained_last(tmp_path):
    says = Callback()  # `ForgettingLogger` says so, too, but refuses a validation whose task is not known
    says.task_source = lambda run: run.current_epoch
    sparsity, subnetworks, module = SparsityLogger(), SubnetworkLogger(), Alone()
    run = trainer(tmp_path, [says, sparsity, subnetworks], epochs=2)
    run.fit(module, Tasks(1))
    assert subnetworks.win_rates["net.1"].shape == (2, 16)
    known = subnetworks.win_rates["net.1"].clone()
    with pytest.warns(UserWarning, match="is unknown"):
        run.validate(module, loader(seed=107), verbose=False)
    assert METRICS == set(sparsity.values["net.1"]) and subnetworks.win_rates["net.1"].equal(known)
    says.task_source = 0
    run.validate(module, loader(seed=107), verbose=False)
    with torch.no_grad():
        expected = by_hand(module.net[:2](inputs(7)))
    assert_figures(sparsity.values["net.1"], {f"{metric}/task_0": value for metric, value in expected.items()})
    assert subnetworks.win_rates["net.1"][1].equal(known[1]) and not subnetworks.win_rates["net.1"][0].equal(known[0])


class Alone(ReluNet):
    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
