"""Which tasks a policy knows when its training starts, and what may be lost of them."""

from collections.abc import Collection, Iterable, Sequence

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from dendrite_zoo.rl import TaskSpec


def known_of(policy: nn.Module, tasks: Iterable[str]) -> list[str]:
    """Which of some tasks a policy was loaded with, and has learned."""
    saved = getattr(getattr(policy, "origin", None), "arguments", {}).get("tasks", ())
    learned = getattr(policy, "learned_tasks", saved)
    own = list(tasks)
    return [task for task in saved if task in own and task in learned]


def warn_of_loss(known: Sequence[str], trained: Collection[str]) -> None:
    """Say so where all of a policy is trained on data that leave out what it was loaded to know."""
    if lost := ", ".join(task for task in known if task not in trained):
        rank_zero_warn(
            f"learn='all': the policy was loaded with {lost}, which the data leave out, and training all of it loses "
            "them. Give learn='new', which leaves what it does there as it is, or data of these tasks, too."
        )


def warn_of_new_critics(policy: nn.Module, tasks: Iterable[str]) -> None:
    """Say so where critics that know nothing would teach a policy what it does already."""
    if again := known_of(policy, tasks):
        rank_zero_warn(
            f"The policy was loaded with {', '.join(again)}, and its critics are new: until they have learned, they "
            "lead it away from what it does, which is lost in a few hundred updates. Give kl_coef= and actor_warmup=, "
            "as the recipe metaworld-finetune does (10 and 250); or go on with module and critics of a checkpoint."
        )


def warn_of_other_scales(policy: nn.Module, specs: Iterable[TaskSpec]) -> None:
    """Say so where a policy goes on with a task whose observations it has learned in other scales."""
    learned = getattr(policy, "task_normalizers", {})
    if other := [spec.name for spec in specs if learned.get(spec.name, spec.normalizer) != spec.normalizer]:
        rank_zero_warn(
            f"The policy learned {', '.join(other)} with observations that the task normalised otherwise than it does "
            "in these data, and sees other numbers. Give the task with what it learned by: dataclasses.replace(spec, "
            "normalizer=policy.task_normalizers[spec.name])."
        )
