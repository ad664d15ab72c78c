"""What a fit did not learn is said when it ends."""

import warnings

import pytest
import torch
from torch import nn

from dendrite_zoo.lightning_modules import ContinualClassifier, MultiTaskClassifier
from dendrite_zoo.models import ActiveDendriteClassifier, RidgeClassifier
from dendrite_zoo.streams import MixedTasks, PermutedTasks, SplitTasks, TaskSequence
from tests.lightning_modules.quiet import fit

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers|.*smaller than the logging")
HARDLY, LOST = "The network has hardly learned", "Context finds the task of"


def standardised(rows=120, features=12):
    """Two classes that differ in one column; each column has mean 0 and standard deviation 1."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(rows) % 2
    x = torch.randn(rows, features, generator=rng)
    x[:, 0] = x[:, 0] * 0.1 + 2.0 * y
    return (x - x.mean(0)) / x.std(0), y


def said(module, stream):
    """All that a fit warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, stream)
    return "\n".join(str(one.message) for one in caught)


def test_too_few_steps_are_said():
    stream = PermutedTasks(standardised(), num_tasks=2, batch_size=48, epochs_per_task=1)
    text = said(ContinualClassifier(ActiveDendriteClassifier(12, [64], 2, max_tasks=2)), stream)
    assert f"{HARDLY} tasks 0 to 1: task 0 had 2 steps of the optimizer" in text
    assert "epochs_per_task=50 or more" in text


def test_a_fast_dev_run_is_to_learn_nothing():
    stream = PermutedTasks(standardised(), num_tasks=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(ContinualClassifier(nn.Linear(12, 2)), stream, fast_dev_run=True)
    assert not [one for one in caught if HARDLY in str(one.message)]


def test_of_tasks_at_once_too():
    data = MixedTasks(PermutedTasks(standardised(), num_tasks=2, batch_size=48, epochs_per_task=1), epochs=1)
    assert HARDLY in said(MultiTaskClassifier(nn.Linear(12, 2)), data)


def test_what_was_learned_is_not():
    stream = PermutedTasks(standardised(), num_tasks=1, epochs_per_task=10, batch_size=48)
    assert HARDLY not in said(ContinualClassifier(nn.Linear(12, 2), lr=0.1), stream)  # in 20 steps


def test_many_steps_are_no_matter_of_steps():
    x, y = standardised()
    stream = TaskSequence([(x, torch.randperm(2).repeat(60), x, y)], epochs_per_task=25, batch_size=24)
    assert HARDLY not in said(ContinualClassifier(nn.Linear(12, 2), lr=1e-9), stream)


def test_nothing_is_said_of_what_is_solved_or_has_another_loss():
    stream = PermutedTasks(standardised(), num_tasks=2, epochs_per_task=1)
    assert HARDLY not in said(ContinualClassifier(RidgeClassifier(12, 2, random_features=32)), stream)
    x, y = standardised()
    regression = ContinualClassifier(nn.Linear(12, 1), loss=nn.MSELoss())
    assert HARDLY not in said(regression, TaskSequence([(x, y[:, None].float())], epochs_per_task=1))


@pytest.mark.parametrize("density", [0.05, 0.4])
def test_hardly_any_active_units_are_said(density):
    stream = PermutedTasks("digits", num_tasks=1, epochs_per_task=6, batch_size=64)
    model = ActiveDendriteClassifier(64, [64], 10, max_tasks=1, winners="context", activation_density=density)
    text = said(ContinualClassifier(model), stream)
    few = "learned task 0 badly" in text and "3 of the 64 units of a hidden layer are active" in text
    assert few == (density == 0.05) == ("Give activation_density=0.2, or wider layers" in text)


def test_contexts_that_are_not_found_are_said():
    stream = PermutedTasks(standardised(), num_tasks=4, epochs_per_task=1)
    model = ActiveDendriteClassifier(12, [64], 2, max_tasks=4)
    text = said(ContinualClassifier(model), stream)
    assert f"Prototype{LOST}" in text
    assert "context='ridge'" in text


@pytest.mark.parametrize("source", [standardised(), "digits"], ids=["equal means", "other means"])
def test_one_cluster_for_all_tasks_is_said(source):
    features, classes = (64, 10) if isinstance(source, str) else (12, 2)
    stream = PermutedTasks(source, num_tasks=3, batch_size=64, epochs_per_task=1)
    model = ActiveDendriteClassifier(features, [64], classes, max_tasks=6, context="clusters")
    text = said(ContinualClassifier(model), stream)
    assert (
        ("took tasks 0 to 2 for one cluster" in text) == (not isinstance(source, str)) == (model.context.num_tasks == 1)
    )


@pytest.mark.parametrize("way", ["given", "constant"])
def test_but_not_where_none_is_to_be_found(way):
    stream = PermutedTasks(standardised(), num_tasks=4, epochs_per_task=1)
    module = ContinualClassifier(ActiveDendriteClassifier(12, [64], 2, max_tasks=4), context_at_test=way)
    assert LOST not in said(module, stream)


def test_nor_where_they_are_found():
    stream = PermutedTasks("digits", num_tasks=2, epochs_per_task=1)
    assert LOST not in said(ContinualClassifier(ActiveDendriteClassifier(64, [32], 10, max_tasks=2)), stream)


@pytest.mark.parametrize("kept", [False, True])
def test_what_was_forgotten_is_said_with_what_forgets_nothing(kept):
    """The remedy, taken at its word, is one."""
    model = {"winners": "context", "context": "ridge"} if kept else {}
    stream = SplitTasks("digits", num_tasks=2, epochs_per_task=20)
    network = ActiveDendriteClassifier(64, [64], 10, max_tasks=2, **model)
    text = said(ContinualClassifier(network, learn="new" if kept else "all"), stream)
    assert ("has forgotten much of task 0: accuracy fell by 0." in text) == (not kept)
    assert ("winners='context', context='ridge') and ContinualClassifier(..., learn='new')" in text) == (not kept)


@pytest.mark.parametrize("additive", [False, True])
def test_where_columns_alone_are_too_little_that_is_said(additive):
    torch.manual_seed(0)
    options = {"context": "one-hot", "additive_segments": additive}
    module = ContinualClassifier(
        ActiveDendriteClassifier(64, [32], 10, max_tasks=2, **options), learn="new", context_at_test="given"
    )
    text = said(module, PermutedTasks("digits", num_tasks=2, batch_size=64, epochs_per_task=5))
    assert ("has learned task 1 badly" in text and "additive_segments=True" in text) == (not additive)
