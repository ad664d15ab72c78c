"""What a user gives to say the task: once for all runs, or for the next."""

import pytest
import torch

from dendrite_zoo.callbacks.given_task import EpochsPerTask, GivenTask


def test_an_index_is_for_one_run():
    given = GivenTask()
    assert given.source is None and given.used_up is None
    given.give(torch.tensor(2))
    assert given.source == given.index == 2 and given.anew
    given.use_up(needed=False)
    assert given.index == 2, "a validation of all loaders needs none"
    given.use_up()
    assert given.source is given.index is None and given.used_up == 2 and not given.anew


def test_beside_a_function_it_is_for_the_next_run_of_any_kind():
    given = GivenTask(epochs_per_task=2)
    given.give(1)
    given.use_up(needed=False)
    assert given.source == EpochsPerTask(2) and given.used_up is None


def test_what_is_given_last_counts():
    given = GivenTask(0)
    given.give("math.gcd")
    assert given.source == "math.gcd" and given.index is None


def test_what_cannot_be_given():
    with pytest.raises(ValueError, match="Expected `task` or `epochs_per_task`, but got both"):
        GivenTask(0, epochs_per_task=2)
    with pytest.raises(ValueError, match="Expected `epochs_per_task` to be an integer of at least 1, but got 1.5"):
        GivenTask(epochs_per_task=1.5)
    for path in ("nothing", "math.nothing", ".gcd", ""):
        with pytest.raises(ValueError, match="Expected `task` to be the import path of a function"):
            GivenTask(path)
