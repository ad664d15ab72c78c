"""Real Meta-World. Making an environment takes a fifth of a second, so tests share them."""

from collections.abc import Iterator

import pytest

from dendrite_zoo.rl import TaskEnvironments

SHORT = 8  # steps of an episode


@pytest.fixture(scope="session")
def envs() -> Iterator[TaskEnvironments]:
    """Two tasks, two environments of each, short episodes, in this process."""
    pytest.importorskip("metaworld")
    with TaskEnvironments(["reach-v3", "push-v3"], envs_per_task=2, max_steps=SHORT, num_processes=0) as envs:
        yield envs
