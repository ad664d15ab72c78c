"""The bootstrap against the binomial law and a naive loop."""

import numpy as np
import pytest

from dendrite_zoo.functional import bootstrap_interval


def test_bootstrap_over_goals_agrees_with_the_binomial_law():
    """Resampling G binary goals with replacement is binomial, so the interval's width has a closed form."""
    success = np.zeros((2, 50), dtype=bool)
    success[0, :45] = success[1, :30] = True
    low, high = bootstrap_interval(success)
    spread = np.sqrt(0.9 * 0.1 / 50 + 0.6 * 0.4 / 50) / 2
    assert (low + high) / 2 == pytest.approx(0.75, abs=0.01)
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.08)
    assert bootstrap_interval(success) == (low, high)  # frozen draws
    inner = bootstrap_interval(success, level=0.5)
    assert low < inner[0] < inner[1] < high


def test_bootstrap_over_seeds_is_that_of_a_naive_loop():
    success = np.random.RandomState(0).uniform(size=(3, 2, 10)) < np.array([0.2, 0.5, 0.9])[:, None, None]
    generator, means = np.random.RandomState(1), []
    for _ in range(4000):
        total, seeds = 0.0, generator.randint(3, size=3)
        for task in range(2):
            goals = generator.randint(10, size=10)
            total += sum(success[seed, task, goals].mean() for seed in seeds)
        means.append(total / 6)
    assert bootstrap_interval(success) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_bootstrap_refuses_a_list():
    with pytest.raises(ValueError, match=r"Expected successes of shape \(tasks, goals\)"):
        bootstrap_interval([1, 0])


def test_a_seed_that_repeats_another_adds_nothing():
    """All seeds play the same goals, so a goal that is hard for one is hard for all."""
    success = np.random.default_rng(0).random((4, 20)) < 0.8
    once, twice = bootstrap_interval(success), bootstrap_interval([success, success])
    np.testing.assert_allclose(twice, once, atol=0.015)


@pytest.mark.parametrize("goals, tasks", [(5, 1), (5, 10), (50, 2)])
def test_all_or_none_has_the_width_of_wilsons_score(goals, tasks):
    n, z = goals * tasks, 1.959964
    centre, half = (1 + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n) * np.sqrt(z**2 / (4 * n**2))
    assert bootstrap_interval(np.ones((tasks, goals))) == pytest.approx((centre - half, 1.0), abs=1e-6)
    assert bootstrap_interval(np.zeros((3, tasks, goals))) == pytest.approx((0.0, 1 - centre + half), abs=1e-6)
    assert centre + half == pytest.approx(1.0)
