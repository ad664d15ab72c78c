"""The Fisher information against closed forms, and against a loop over single samples."""

from __future__ import annotations

import copy
import warnings
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from dendrite_zoo.models import ActiveDendriteClassifier, XdGClassifier
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.regularizers import fisher, fisher_diagonal


@pytest.mark.parametrize("size", [1, 7, 50])
@pytest.mark.parametrize("exact", [True, False])
def test_of_a_linear_gaussian_model(size, exact):
    """log p(y | x) = -(y - w·x)²/2: the gradient is r x, and F the mean of r² x²; the estimate needs single samples."""
    torch.manual_seed(0)
    w = torch.randn(3, dtype=torch.float64, requires_grad=True)
    x, noise = torch.randn(50, 3, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    y = x @ w.detach() + noise

    def log_likelihood(p, batch):
        return -((batch["y"] - batch["x"] @ p["w"]) ** 2) / 2

    batches = [{"x": a, "y": b, "name": "no tensor"} for a, b in zip(x.split(size), y.split(size), strict=True)]
    found = fisher_diagonal({"w": w}, log_likelihood, batches, exact=exact)["w"]
    expected = (noise[:, None].square() * x.square()).mean(0)
    if exact or size == 1:
        torch.testing.assert_close(found, expected)
    else:
        assert not torch.allclose(found, expected, rtol=0.01)


def test_of_a_logistic_model():
    """Over labels as the model draws them, F is the mean of p (1 - p) x²."""
    torch.manual_seed(0)
    w, x = torch.randn(4, dtype=torch.float64, requires_grad=True), torch.randn(20, 4, dtype=torch.float64)
    p = torch.sigmoid(x @ w).detach()
    rows = torch.cat([x, x]), torch.tensor([1.0] * 20 + [-1.0] * 20, dtype=torch.float64), torch.cat([p, 1 - p])

    def log_likelihood(parameters, batch):
        x, label, share = batch
        return 2**0.5 * share.sqrt() * F.logsigmoid(label * (x @ parameters["w"]))

    expected = ((p * (1 - p))[:, None] * x.square()).mean(0)
    torch.testing.assert_close(fisher_diagonal({"w": w}, log_likelihood, [rows])["w"], expected)


class Recurrent(nn.Module):
    """Its two biases have one gradient."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.rnn(x.view(-1, 2, 4))[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.out = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.encoder(x.view(-1, 2, 4)).mean(1))


class Branches(nn.Module):
    """Looks at values, which torch.func cannot."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(x if x.sum() > 0 else 2 * x)


class InPlace(Branches):
    """Writes into what has no samples."""

    def forward(self, x):
        return torch.zeros(len(x), 3).add_(self.out(x))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.out = nn.Linear(8, 8), nn.Linear(8, 3)
        self.two = nn.Linear(8, 8, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.out(torch.tanh(self.two(torch.tanh(self.one(x)))))


def classifier(**arguments):
    model = ActiveDendriteClassifier(8, [20, 20], 3, max_tasks=3, **arguments)
    for task in range(3):
        model.context.start_task(task, [torch.randn(6, 8) + 4 * task])
    return model


MODELS = {
    "norms": lambda: nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(16, 3)
    ),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 4)), nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(12, 3)
    ),
    "recurrent": Recurrent,
    "attention": Attention,
    "tied": Tied,
    "dendrites": classifier,
    "sparse dendrites": lambda: classifier(segment_density=0.5, gate="bias", weight_density=0.3),
    "subnetworks": lambda: classifier(winners="context"),
    "branches": Branches,
    "in place": InPlace,
}
LOOPED = ("branches", "in place")


def cross_entropy(model, batch, **arguments):
    return -F.cross_entropy(model(batch[0], **arguments), batch[1], reduction="none")


def pure(model, **arguments):
    class Likelihood(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return cross_entropy(self.model, batch, **arguments)

    likelihood = Likelihood()
    return lambda p, batch: functional_call(likelihood, {f"model.{name}": t for name, t in p.items()}, (batch,))


def sample_by_sample(model, x, y, **arguments):
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(len(x)):
        model.zero_grad()
        cross_entropy(model, (x[i : i + 1], y[i : i + 1]), **arguments).sum().backward()
        for name, p in model.named_parameters():
            if p.grad is not None:
                total[name] += p.grad.to_dense().square() / len(x)
    model.zero_grad()
    return total


def data(rows=20):
    return torch.randn(rows, 8), torch.randint(3, (rows,))


@pytest.mark.parametrize("name", MODELS)
def test_equals_a_loop_over_samples(name, monkeypatch):
    torch.manual_seed(0)
    model, (x, y) = MODELS[name]().eval(), data()
    before, expected = copy.deepcopy(model.state_dict()), sample_by_sample(model, x, y)
    monkeypatch.setattr(fisher, "CHUNK", 7 * sum(p.numel() for p in model.parameters()))
    batches = [(x[:9], y[:9]), (x[9:10], y[9:10]), (x[10:], y[10:])]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = fisher_diagonal(dict(model.named_parameters()), pure(model), batches)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-7, msg=lambda text, key=key: f"{key}: {text}")
    messages = [str(one.message) for one in said]
    assert len(messages) == (name in LOOPED)
    assert all("is computed from one sample after another, which takes longer: torch.func" in text for text in messages)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    for key, value in sample_by_sample(model, x, y).items():  # the model is as it was
        assert torch.equal(value, expected[key])


@pytest.mark.parametrize("winners", ["activation", "context"])
@pytest.mark.parametrize("context", ["prototype", "one-hot"])
def test_with_tasks_given_and_segments_that_an_optimizer_owns(winners, context):
    torch.manual_seed(0)
    model, (x, y) = classifier(winners=winners, context=context).eval(), data()
    expected = sample_by_sample(model, x, y, task=1)
    optimizer = DendriteAdam(model.parameters())
    found = fisher_diagonal(dict(model.named_parameters()), pure(model, task=1), [(x, y)])
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-8)
    optimizer.release()


def test_of_gated_networks():
    torch.manual_seed(0)
    model, (x, y) = XdGClassifier(8, [20], 3, max_tasks=3), data()
    expected = sample_by_sample(model, x, y, task=2)
    found = fisher_diagonal(dict(model.named_parameters()), pure(model, task=2), [(x, y)])
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-8)


def test_gradients_unlike_autograds_are_not_taken():
    class Wrong(torch.autograd.Function):
        """Under torch.func its gradient is another."""

        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, grad):
            return grad * (2 if torch._C._are_functorch_transforms_active() else 1)

    w, x = torch.ones(2, requires_grad=True), torch.randn(5, 2)
    with pytest.warns(match="torch.func cannot .its gradients are not those of autograd."):
        found = fisher_diagonal({"w": w}, lambda p, x: (Wrong.apply(p["w"]) * x).sum(1), [x])
    torch.testing.assert_close(found["w"], x.square().mean(0))


def test_batches_that_cannot_be_taken_apart_are_estimated():
    w = torch.ones(2, requires_grad=True)
    graph = {"nodes": torch.randn(5, 2), "edges": torch.zeros(9, 2).long()}
    with pytest.warns(match="estimated from whole batches: their tensors differ in length"):
        found = fisher_diagonal({"w": w}, lambda p, b: (b["nodes"] * p["w"]).sum()[None], [graph])
    torch.testing.assert_close(found["w"], graph["nodes"].sum(0).square())


def test_estimates_are_right_on_average_and_a_third_off_at_256():
    """Random signs make the batch's square unbiased; the square of the mean gradient is something else."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    parameters, x, y = dict(model.named_parameters()), torch.randn(64, 4), torch.randint(3, (64,))
    batches = list(zip(x.split(16), y.split(16), strict=True))
    exact = fisher_diagonal(parameters, pure(model), batches)

    def estimate(seed):
        generator = torch.Generator().manual_seed(seed)
        return fisher_diagonal(parameters, pure(model), batches, exact=False, generator=generator)

    draws = [estimate(seed) for seed in range(400)]
    for name in parameters:
        mean = torch.stack([draw[name] for draw in draws]).mean(0)
        assert ((mean - exact[name]).norm() / exact[name].norm()).item() < 0.1
    assert all(torch.equal(estimate(3)[name], draws[3][name]) for name in parameters)
    (gradient,) = torch.autograd.grad(-F.cross_entropy(model(x), y), model[0].weight)
    assert gradient.square().sum() < 0.2 * exact["0.weight"].sum()


def test_parameters_out_of_play_have_no_information():
    parameters = {name: torch.ones(2, requires_grad=name != "frozen") for name in ("used", "unused", "frozen")}
    for exact in (True, False):
        found = fisher_diagonal(
            parameters, lambda p, x: x @ p["used"] + 0 * p["frozen"][0], [torch.ones(1, 2)], exact=exact
        )
        assert {name: value.tolist() for name, value in found.items()} == {
            "used": [1, 1],
            "unused": [0, 0],
            "frozen": [0, 0],
        }


@pytest.mark.parametrize("exact", [True, False])
def test_sparse_gradients_count_as_dense_ones_do(exact):
    torch.manual_seed(0)
    dense = nn.Embedding(5, 3)
    sparse = nn.Embedding(5, 3, sparse=True, _weight=dense.weight.detach().clone())
    ids = torch.tensor([[0, 2], [2, 2], [4, 0]])
    rows, found = list(ids.split(1)), []
    for module in (dense, sparse):

        def log_likelihood(p, batch, module=module):
            return functional_call(module, p, (batch,)).square().sum((1, 2))

        looped = exact and module is sparse  # torch.func has no sparse gradients
        with pytest.warns(match="from one sample after another") if looped else nullcontext():
            found.append(fisher_diagonal(dict(module.named_parameters()), log_likelihood, rows, exact=exact)["weight"])
    torch.testing.assert_close(*found)


def test_bad_input():
    w = {"w": torch.ones(2, requires_grad=True)}
    for exact in (True, False):
        with pytest.raises(ValueError, match=r"one number a sample, but got \(\). Use reduction='none'"):
            fisher_diagonal(w, lambda p, x: (x @ p["w"]).mean(), [torch.ones(3, 2)], exact=exact)
        with pytest.raises(ValueError, match="at least one sample of the task, but got none"):
            fisher_diagonal(w, lambda p, x: x @ p["w"], [], exact=exact)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied|size mismatch|mat1 and mat2|size of tensor"):
        fisher_diagonal(w, lambda p, x: x @ p["w"], [torch.ones(3, 5)])  # the function's own error, without a warning


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("row", [0, 3])
def test_a_sample_of_which_nothing_is_known_is_no_fault_of_torch_func(exact, row):
    """The last row of a batch is the one that is compared with autograd."""
    w, x = torch.ones(2, requires_grad=True), torch.ones(4, 2)
    x[row, 1] = torch.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fisher_diagonal({"w": w}, lambda p, rows: -((rows @ p["w"]) ** 2), [x], exact=exact)
    assert found["w"].isnan().any()  # which `ElasticWeightConsolidation.end_task` refuses
