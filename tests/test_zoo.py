"""The zoo holds what it says: the shipped weights are measured again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import dendrite_zoo
from dendrite_zoo.hub import artifact, config, registry
from dendrite_zoo.models import RidgeClassifier
from dendrite_zoo.rl import evaluate_policy
from dendrite_zoo.streams import benchmark_stream

# the large ones are not shipped: they lie there where somebody has made them
BUNDLED = [entry for entry in registry.entries().values() if entry.bundled and entry.size < 10e6]
POLICIES = [entry for entry in BUNDLED if entry.name.startswith("metaworld-")]
ADAPTED = [entry for entry in BUNDLED if config.read(entry.folder / "config.json")["model_type"] == "adapted-backbone"]
CLASSIFIERS = [entry for entry in BUNDLED if entry not in POLICIES + ADAPTED]
# A copy of the Hub's data sets, laid out as <org>/<name>/<path in the repo>.
MIRROR = Path(os.environ.get("DENDRITE_ZOO_DATASETS", Path(__file__).parents[1].parent / "shared" / "hub" / "datasets"))


def test_the_bundled_entries_are_small():
    assert BUNDLED and sum(entry.size for entry in BUNDLED) <= 10e6
    assert registry.entry("permuted-digits").size < 3e6


@pytest.mark.parametrize("entry", CLASSIFIERS, ids=lambda entry: entry.name)
def test_shipped_weights_give_the_figures_of_results_json(entry):
    model = dendrite_zoo.load(entry.name)
    own = json.loads((entry.folder / "results.json").read_text(encoding="utf-8"))[0]
    sums = isinstance(model, RidgeClassifier)  # which knows classes and no tasks
    assert sums or model.num_tasks == own["num_tasks"]
    assert own["context_at_test"] == ("none" if sums else "inferred")
    source = MIRROR / "ylecun" / "mnist" if own["benchmark"].endswith("mnist") else None
    if source is not None and not source.is_dir():
        pytest.skip(f"no copy of ylecun/mnist under {MIRROR}; DENDRITE_ZOO_DATASETS can name another folder")
    stream = benchmark_stream(own["benchmark"], own["num_tasks"], source=source, seed=own["seeds"][0])
    with torch.no_grad():
        right = [
            torch.cat([model(x).argmax(1) == y for x, y in stream.task_loader(task, "test")]).double().mean()
            for task in range(stream.num_tasks)
        ]
    # a few images lie on the border, where another processor rounds to the other side
    measured = (own.get("average_accuracy_per_seed") or [own["average_accuracy"]])[0]
    assert float(sum(right)) / len(right) == pytest.approx(measured, abs=2e-3)


@pytest.mark.parametrize("entry", ADAPTED, ids=lambda entry: entry.name)
def test_dendrites_on_a_backbone_give_the_figures_of_results_json(entry, monkeypatch):
    """Test images that the benchmark takes first of each task, measured again; their task is inferred."""
    weights = MIRROR.parent / "models" / "local" / "resnet20-cifar10" / "model.safetensors"
    if not weights.is_file():
        pytest.skip(f"no copy of the backbone at {weights}; DENDRITE_ZOO_DATASETS can name the datasets beside it")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    monkeypatch.setenv("DENDRITE_ZOO_DATASETS", str(MIRROR))
    import backbone_sequence
    import resnet20

    model = dendrite_zoo.load(entry.name, backbone=resnet20.resnet20(weights))
    own = json.loads((entry.folder / "results.json").read_text(encoding="utf-8"))[0]
    assert own["context_at_test"] == "inferred" and own["num_tasks"] == model.num_tasks == len(own["tasks"])
    rng = np.random.RandomState(own["seeds"][0])
    drawn = {name: backbone_sequence.read(name, 32, rng) for name in own["drawn"]}
    for name, expected in zip(own["tasks"], own["first_right"], strict=True):
        task = drawn[name]
        x, y = task.x_test[: backbone_sequence.FIRST], task.y_test[: backbone_sequence.FIRST]
        with torch.no_grad():
            right = (model(x).argmax(1) == y).double().mean()
        assert float(right) == pytest.approx(expected, abs=0.01)  # the file is rounded, and so are processors


@pytest.mark.parametrize("entry", POLICIES, ids=lambda entry: entry.name)
def test_shipped_policies_reach_the_goals_of_results_json(entry):
    """A few of the goals, played again; the first seed's weights are the ones that are shipped."""
    pytest.importorskip("metaworld")
    policy, goals = dendrite_zoo.load(entry.name), 3
    own = json.loads((entry.folder / "results.json").read_text(encoding="utf-8"))[0]
    assert list(policy.tasks) == own["tasks"] and own["context_at_test"] == "given" and own["goals"] == "test"
    chosen = np.linspace(0, policy.num_tasks - 1, 4).round().astype(int)
    report = evaluate_policy(
        lambda observations, index: policy.act_batch(observations, chosen[index]),
        [policy.tasks[task] for task in chosen],
        num_goals=goals,
        num_processes=0,
        fast=True,
        stop_at_success=True,
    )
    first = np.array(own["first_success"]).reshape(-1, policy.num_tasks, 50)  # of a merged record one for each seed
    expected = first[0, chosen, :goals] > 0
    assert (report.reached != expected).sum() <= 1  # another processor rounds in another way


@pytest.mark.parametrize("entry", POLICIES, ids=lambda entry: entry.name)
def test_policies_reach_what_was_asked_of_them(entry):
    own = json.loads((entry.folder / "results.json").read_text(encoding="utf-8"))[0]
    least = {"metaworld-mt10": 0.975, "metaworld-mt50": 0.965, "metaworld-mt10-scratch": 0.99}[entry.name]
    assert own["average_accuracy"] >= least and own["num_goals"] == 50 and own["max_steps"] == 500
    weakest = {"metaworld-mt10": 0.85, "metaworld-mt50": 0.80, "metaworld-mt10-scratch": 0.90}[entry.name]
    assert min(own["task_accuracies"]) >= weakest


@pytest.mark.parametrize("entry", BUNDLED, ids=lambda entry: entry.name)
def test_files_are_the_pinned_ones(entry):
    for name, pin in entry.files.items():
        path = entry.folder / name
        assert artifact.sha256(path) == pin["sha256"] and path.stat().st_size == pin["size"]


def test_permuted_digits_beats_dense_networks_of_equal_parameters():
    own, *controls = json.loads((registry.entry("permuted-digits").folder / "results.json").read_text(encoding="utf-8"))
    assert len(controls) == 2, "without synaptic intelligence, and with it"
    for mlp in controls:
        assert len(own["seeds"]) == len(mlp["seeds"]) == 3 and mlp["parameters"] >= own["parameters"]
        assert own["average_accuracy"] >= 0.95 and own["average_accuracy"] - mlp["average_accuracy"] >= 0.25
