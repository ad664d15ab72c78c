"""Whether a ridge head sees features with gates or without is chosen by rows that gates are not trained on."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dendrite_zoo
from dendrite_zoo import add_dendrites
from dendrite_zoo.layers import RidgeHead
from dendrite_zoo.models.adapters.features import left_out
from tests.models.adapters.networks import TOKENS

SIZE = 24


def rows(count=700, seed=0):
    """Two classes that differ in the first number of a row alone."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, SIZE, generator=generator)
    y = torch.arange(count) % 2
    x[:, 0] += 2.0 * y - 1
    return x, y


class Given(nn.Module):
    """A network that gives its inputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(SIZE, SIZE)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(SIZE))
            self.layer.bias.zero_()

    def forward(self, x):
        return self.layer(x)


def identity(**options):
    """Dendrites on it; the head has no features of the inputs themselves, as an example by keyword is none."""
    options = {"num_classes": 2, "max_tasks": 3, "context": "given", **options}
    return add_dendrites(Given(), layers="layer", example={"x": torch.zeros(2, SIZE)}, **options)


def started(gates, **options):
    """A model whose gates were learned: of the first number, and of the others."""
    model, (x, y) = identity(**options), rows()
    model.start_task(0, [x])
    with torch.no_grad():
        model.column[:SIZE] = gates[1]
        model.column[0] = gates[0]
    return model.eval(), x, y


def test_rows_are_left_out_by_what_is_in_them():
    x = torch.rand(7000, 3, 8, 8)
    out = left_out(x)
    assert 800 < int(out.sum()) < 1200, "one of seven"
    order = torch.randperm(7000)
    assert torch.equal(left_out(x[order]), out[order])
    assert torch.equal(torch.cat([left_out(part) for part in x.split(64)]), out)
    assert torch.equal(left_out(x.to(torch.bfloat16)), out), "a Trainer may cast what it is given"
    assert not left_out(torch.ones(64, 5)).any() and left_out(x[:0]).shape == (0,), "never all of them"
    one_hot = left_out(torch.eye(700))
    assert 60 < int(one_hot.sum()) < 140
    draws = torch.Generator().manual_seed(0)
    for _ in range(20):
        first = torch.randint(20, (24, 6), generator=draws).repeat(20, 1)
        assert 40 < int(left_out(first + torch.arange(480)[:, None]).sum()) < 110, "of rows that count up, too"


def test_padding_has_no_part_in_it():
    ids, mask = TOKENS.repeat(20, 1) + torch.arange(480)[:, None], torch.ones(480, 9).long()
    mask[:, 6:] = 0
    out = left_out({"input_ids": ids, "attention_mask": mask})
    ids[:, 6:] = 99
    assert out.any() and torch.equal(left_out({"input_ids": ids, "attention_mask": mask}), out)
    assert torch.equal(left_out({"input_ids": ids[:, :7], "attention_mask": mask[:, :7]}), out)


@pytest.mark.parametrize("training", [True, False])
def test_gates_are_not_trained_on_them(training):
    x, y = rows(70)
    grads = []
    for held in (torch.zeros(70).bool(), left_out(x)):  # the mean over the others, by hand
        model = identity(head="ridge" if held.sum() == 0 else "linear")
        model.start_task(0, [x])
        with torch.no_grad():
            model.column[SIZE:].copy_(torch.randn(len(model.column) - SIZE, generator=torch.Generator().manual_seed(1)))
        model.train(training)
        losses = F.cross_entropy(model(x, task=0), y, reduction="none")
        (losses[~held].sum() / 70).backward()
        grads.append(model.column.grad)
    assert left_out(x).sum() > 3 and grads[0].abs().max() > 1e-3
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def by_hand(model, x, y):
    """Right answers for the rows left out, of heads that learned the others, on features without gates and with."""
    out, found = left_out(x), []
    for z in (model.features(x), model.features(x, 0)):
        h = model.heads.random[0](model.heads.normalised(z, 0)).detach()
        head = RidgeHead(h.shape[1], 2)
        head.learn([(h[~out], y[~out])])
        found.append(int((head(h[out]).argmax(1) == y[out]).sum()))
    return found


@pytest.mark.parametrize(("gates", "better"), [((0.0, -6.0), True), ((-6.0, 0.0), False)])
def test_a_head_sees_gates_where_they_are_better(gates, better):
    """Gates that shut what says nothing help; gates that shut what matters do not, and are left out."""
    model, x, y = started(gates)
    without, with_gates = by_hand(model, x, y)
    assert (with_gates > without) is better
    model.fit_head(0, zip(x.split(100), y.split(100), strict=True))
    assert model.sees_gates(0) is better and model.sees_gates(1)
    expected = model.heads.normalised(model.features(x, 0 if better else None), 0)
    solved = F.linear(model.heads._hidden(expected), model.heads.ridge_weight[0], model.heads.ridge_bias[0])
    torch.testing.assert_close(model(x, task=0), solved, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.fold(0)(x), solved, rtol=1e-3, atol=1e-3)
    test, labels = rows(seed=1)
    assert (model(test, task=0).argmax(1) == labels).float().mean() > 0.75
    before = model(x, task=0)
    again = identity()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(x, task=0), before) and again.sees_gates(0) is better
    model.start_task(1, [x + 1])
    assert torch.equal(model(x, task=0), before) and model.sees_gates(0) is better and model.learning == 1
    model.start_task(0, [x])
    assert model.sees_gates(0), "it learns anew"


@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_features_with_gates_are_found_where_there_are_gates(gate):
    """Each batch runs through the network once where all gates are 1, else twice."""
    model, x, y = started((0.0, gate))
    runs = []
    model.backbone.register_forward_hook(lambda *_: runs.append(1))
    model.fit_head(0, zip(x.split(100), y.split(100), strict=True))
    assert len(runs) == 7 * (1 + bool(gate))


def alike(task, rows=90, seed=0):
    """Tasks of one mean: nine corners of a ring, of which each task has three, as its classes."""
    generator = torch.Generator().manual_seed(10 * seed + task)
    y = torch.arange(rows) % 3
    x, angle = torch.randn(rows, SIZE, generator=generator), 2 * torch.pi * (3 * y + task) / 9
    x[:, :2] += 8 * torch.stack([angle.cos(), angle.sin()], 1)
    return x, y


def test_tasks_are_told_apart_by_the_means_of_their_classes(tmp_path):
    model = identity(num_classes=3, context="ridge")
    for task in range(3):
        model.start_task(task, [alike(task)[0]])
    both = torch.cat([alike(task, seed=1)[0] for task in range(3)])
    tasks = torch.arange(3).repeat_interleave(90)
    by_tasks = (model.context.infer(both) == tasks).float().mean()
    for task in (1, 0, 2):
        x, y = alike(task)
        model.fit_head(task, zip(x.split(25), y.split(25), strict=True))
        model.fit_head(task, [(x, y)])  # once more is the same
    by_classes = (model.context.infer(both) == tasks).float().mean()
    assert by_classes > 0.8 and by_tasks < 0.5
    context = model.context.inner
    h = torch.cat([context.features(alike(task)[0]) for task in range(3)])
    head = RidgeHead(h.shape[1], 9, penalty=0.1)
    head.learn([(h, torch.cat([alike(task)[1] + 3 * task for task in range(3)]))])
    torch.testing.assert_close(context.head.weight, head.weight, rtol=1e-3, atol=1e-3)
    assert context.counts.tolist() == [90, 90, 90] and model.num_tasks == 3
    model.start_task(1, [alike(1, seed=2)[0]])
    assert context.counts.tolist() == [90, 180, 90]


@pytest.mark.usefixtures("all_random_features")
def test_an_artifact_whose_tasks_had_one_mean_each_loads_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("dendrite_zoo.models.adapters.context.MOST_CLASSES", 1)
    model = identity(num_classes=3, context="ridge")
    for task in range(2):
        model.start_task(task, [alike(task)[0]])
        model.fit_head(task, [alike(task)])
    x = torch.cat([alike(0)[0], alike(1)[0]])
    ids = model.eval().context.infer(x)
    model.save_pretrained(tmp_path)
    monkeypatch.undo()
    resumed = nn.ModuleDict({"model": identity(num_classes=3, context="ridge")})  # as in a checkpoint of Lightning
    resumed.load_state_dict(nn.ModuleDict({"model": model}).state_dict())
    assert torch.equal(resumed["model"].context.infer(x), ids)
    again = dendrite_zoo.load(tmp_path, backbone=model.backbone, max_tasks=4)
    assert again.context.inner.num_classes == 3 and torch.equal(again.context.infer(x), ids)
    again.fit_head(0, [alike(0)])
    again.start_task(2, [alike(2)[0]])
    assert again.num_tasks == 3


def of_two_tasks():
    """A model that has learned two tasks, and the inputs of the first."""
    model, (x, y) = identity(context="ridge"), rows()
    for task in (0, 1):
        model.start_task(task, [x + 3 * task])
        model.fit_head(task, [(x + 3 * task, y)])
    return model, x


def test_an_artifact_without_sums_has_kilobytes_and_learns_no_further_task(tmp_path):
    model, x = of_two_tasks()
    both = torch.cat([x, x + 3])
    expected = model.eval()(both)
    model.save_pretrained(tmp_path / "whole")
    model.drop_sums()
    model.save_pretrained(tmp_path / "small")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "small")]
    sums = model.context.inner.head.triangle.nbytes + model.context.inner.head.sums.nbytes
    assert sizes[0] - sizes[1] == pytest.approx(sums, abs=400)
    for options in ({}, {"max_tasks": 5}):
        again = dendrite_zoo.load(tmp_path / "small", backbone=identity().backbone, **options)
        assert torch.equal(again(both), expected) and again.num_tasks == 2
        with pytest.raises(ValueError, match=r"sums were dropped.*saved before `drop_sums"):
            again.start_task(2, [x - 3])
        assert again.num_tasks == 2 and torch.equal(again(both), expected)
    whole = dendrite_zoo.load(tmp_path / "whole", backbone=identity().backbone)
    whole.start_task(2, [x - 3])
    assert whole.num_tasks == 3


@pytest.mark.usefixtures("all_random_features")
def test_an_artifact_in_half_precision_has_half_of_the_bytes_and_gives_what_was_rounded(tmp_path):
    model, x = of_two_tasks()
    both = torch.cat([x, x + 3])
    exact, ids = model.eval()(both), model.context.infer(both)
    model.drop_sums()
    model.save_pretrained(tmp_path / "small")
    model.drop_sums(half=True)
    rounded, known = model(both), model.context.confidence(both)
    torch.testing.assert_close(rounded, exact, rtol=0.01, atol=0.01)
    assert not torch.equal(rounded, exact) and torch.equal(model.context.infer(both), ids)
    model.save_pretrained(tmp_path / "half")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    again = dendrite_zoo.load(tmp_path / "half", backbone=identity().backbone)
    assert {k: v.dtype for k, v in again.state_dict().items()} == {k: v.dtype for k, v in model.state_dict().items()}
    assert torch.equal(again(both), rounded) and torch.equal(again.context.confidence(both), known)
    again.save_pretrained(tmp_path / "again")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("half", "again")]
    assert files[0] == files[1]


@pytest.mark.parametrize("size", [1e6, 1e3, 1e-9])
def test_features_of_any_size_are_rounded_with_little_change(size):
    """Larger than float16 numbers can be, far from 0, and smaller than the smallest."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(SIZE, 1100)

        def forward(self, x):
            return size * (self.layer(x).relu() + (1e3 if size == 1e3 else 0.0))

    torch.manual_seed(0)
    x, y = rows()
    model = add_dendrites(Wide(), layers="layer", num_classes=2, max_tasks=2, example={"x": x})
    for task in (0, 1):
        model.start_task(task, [x + 3 * task])
        model.fit_head(task, [(x + 3 * task, y)])
    exact, ids = model.eval()(x, task=0), model.context.infer(x)
    model.drop_sums(half=True)
    assert (model(x, task=0) - exact).abs().max() < 0.01 * exact.abs().max()
    assert torch.equal(model.context.infer(x), ids)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_that_was_cast_is_learned_and_solved(dtype):
    model, (x, y) = identity(), rows()
    model.to(dtype).backbone.to(dtype)
    x = x.to(dtype)
    model.start_task(0, [x])
    F.cross_entropy(model(x, task=0), y).backward()
    assert model.column.grad.dtype == dtype and model.column.grad.any()
    model.fit_head(0, [(x, y)])
    assert (model.eval()(x, task=0).argmax(1) == y).float().mean() > 0.8


LINEAR = {"context": "ridge", "head": "linear"}


@pytest.mark.parametrize("options", [{"context": "ridge"}, {"context": "prototype"}, LINEAR])
def test_a_model_of_some_tasks_gives_what_the_whole_gives(options, tmp_path):
    model, (x, y) = identity(num_classes=40, shift=True, **options), rows()
    for task in range(3):
        model.start_task(task, [x + 3 * task])
        with torch.no_grad():
            model.column.normal_()
        if model.config["head"] == "ridge":
            model.fit_head(task, [(x + 3 * task, y)])
    x = x[:100]
    model.eval().of_tasks([2, 0], num_classes=3).save_pretrained(tmp_path)
    part = dendrite_zoo.load(tmp_path, backbone=identity().backbone)
    assert part.num_tasks == part.max_tasks == 2 and part.learning is None and model.learning == 2
    for new, task in enumerate((2, 0)):
        here = x + 3 * task
        torch.testing.assert_close(part(here, task=new), model(here, task=task)[:, :3])
        assert (part.context.infer(here) == new).float().mean() > 0.9
        assert part.sees_gates(new) == model.sees_gates(task)
    if options["context"] == "ridge":
        assert torch.equal(part.context.confidence(x, task=1), model.context.confidence(x, task=0))
    with pytest.raises(ValueError, match=r"Expected `tasks` to be tasks that were learned, but got \[\]"):
        model.of_tasks([])
    if model.config["head"] == "ridge":
        with pytest.raises(ValueError, match=r"`num_classes` to be at least 2, for task 0 has so many, but got 1"):
            model.of_tasks([0], num_classes=1)


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_a_column_of_a_table_says_as_much_in_any_unit(unit):
    units = torch.ones(SIZE)
    units[0 if unit < 1 else 1] = unit
    x, y = rows()
    model = add_dendrites(Given(), layers="layer", num_classes=2, max_tasks=1, context="given")
    model.start_task(0, [x * units])
    model.fit_head(0, [(x * units, y)])
    right = model(rows(seed=1)[0] * units, task=0).argmax(1) == y
    assert right.float().mean() > 0.75, "the best there can be is 0.84"
