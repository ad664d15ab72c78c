"""A policy at work, as pictures."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_zoo._core.checks import check_integers
from dendrite_zoo._core.progress import progress_bar
from dendrite_zoo.rl.environments import checked_actions
from dendrite_zoo.rl.evaluation import GoalEvaluation
from dendrite_zoo.rl.seen import Act, Policy, acting
from dendrite_zoo.rl.task_list import Tasks

__all__ = ["record_policy"]


def record_policy(
    policy: Act | Policy,
    tasks: Tasks | None = None,
    *,
    steps: int = 105,
    every: int = 8,
    height: int = 90,
    width: int = 120,
    progress: bool = False,
    **options: Any,
) -> dict[str, list[NDArray[np.uint8]]]:
    """Play the first goal of each task, and draw it at work; `dendrite_zoo.report.save_gif` makes a file of it.

    Args:
        policy: as for `evaluate_policy`.
        tasks: as for `evaluate_policy`.
        steps: how many are played; a task that ended before stays as it was.
        every: steps from one picture to the next.
        height: of a picture of Meta-World, in pixels; environments of your own draw in their size.
        width: of a picture of Meta-World.
        progress: show a progress bar.
        **options: as for `evaluate_policy`; environments are in this process unless ``num_processes`` is given.

    Returns:
        The pictures of each task, ``(height, width, 3)``, by its name.

    Raises:
        ImportError: there is no OpenGL to draw by; the message says what to install.
        ValueError: as `evaluate_policy`; or an environment of your own draws nothing.
    """
    check_integers(1, steps=steps, every=every, height=height, width=width)
    act, specs = acting(policy, tasks)
    options = {"num_processes": 0, **options}
    with GoalEvaluation(specs, num_goals=1, **options) as envs, progress_bar(progress) as bar:
        pictures: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in envs.tasks}
        shown = bar.add_task("pictures", total=steps)
        envs.reset()
        actions = np.zeros((envs.num_envs, envs.action_size))
        for step in range(steps):
            if step % every == 0:
                playing = ~envs.finished
                for name, own, picture, plays in zip(
                    envs.tasks, pictures.values(), envs.render(height=height, width=width), playing, strict=True
                ):
                    pictures[name].append(picture if plays or not own else own[-1])
            if len(busy := np.flatnonzero(~envs.finished)):
                chosen = act(envs.observation[busy], envs.task_index[busy])
                actions[busy] = checked_actions(chosen, (len(busy), envs.action_size), envs.task_of(busy))
                envs.step(actions)
            bar.advance(shown)
    return pictures
