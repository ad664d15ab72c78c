"""Files of demonstrations beside a run: collected where missing, compared with what is expected where they exist."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from dendrite_zoo._core.checks import check_integers, wrong_argument
from dendrite_zoo.rl import Demonstrations, TaskSpec, collect_demonstrations
from dendrite_zoo.rl.collection import collection_config
from dendrite_zoo.rl.environments import checked_actions
from dendrite_zoo.rl.episodes import start_seed
from dendrite_zoo.rl.form import close
from dendrite_zoo.rl.metaworld.tasks import MetaWorldTask
from dendrite_zoo.rl.seen import Act

COMPARED = 64
"""Observations in a file by which it is seen whether its expert is the one given."""


def folder_of_run(
    trainer: Trainer, *, resumed: str | None = None, is_usable: Callable[[Path], bool] = lambda folder: True
) -> Path:
    """The folder of a run's demonstrations, on every process the first one's.

    Args:
        trainer: whose logger decides; without one, and with many, fits share a place.
        resumed: the folder that a checkpoint names, which is used again if it exists.
        is_usable: whether what lies in a folder is what a fit needs; else it takes the next number.
    """
    folder = Path(trainer.log_dir or trainer.default_root_dir) / "demonstrations"
    if resumed is not None and Path(resumed).is_dir():
        folder = Path(resumed)
    elif trainer.is_global_zero:
        others = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
        folder = next(one for one in itertools.chain([folder], others) if is_usable(one))
        if not trainer.loggers:  # where nobody expects files
            rank_zero_info(f"The demonstrations are kept in {folder.resolve()}; `folder=` says where else.")
    return Path(trainer.strategy.broadcast(str(folder)))


def rounds_in(folder: Path) -> list[Path]:
    """The files of rounds of DAgger."""
    return sorted(folder.glob("*round-*.safetensors"))


def is_as_expected(path: Path, specs: Sequence[TaskSpec], **arguments: Any) -> bool:
    """Whether `load_or_collect` would take a file, or make it."""
    if not path.is_file():
        return True
    try:
        found = _load(path, [spec.name for spec in specs]).config
    except ValueError:
        return False
    return found is None or not _differences(found, collection_config(tasks=specs, **arguments))


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    return [name for name in {**expected, **found} if found.get(name) != expected.get(name)]


def refuse_rounds(folder: Path) -> None:
    """Refuse rounds of DAgger at the start of a fit: another policy played them.

    Raises:
        FileExistsError: there are some.
    """
    for path in rounds_in(folder):
        raise FileExistsError(
            f"Expected a folder without rounds of DAgger, but got {path} of an earlier fit. Give another `folder`, "
            "remove the rounds, or resume that fit with ckpt_path=."
        )


def rounds_of(dagger_rounds: int | None, epochs: int, has_expert: bool) -> int:
    """How many rounds of DAgger there are; where None were said, as many as there can be, up to 4.

    Raises:
        ValueError: there are to be more than epochs after the first.
    """
    if dagger_rounds is None:
        return min(4, epochs - 1) if has_expert else 0
    check_integers(0, dagger_rounds=dagger_rounds)
    if dagger_rounds >= epochs:  # a round needs an epoch before it
        remedy = f"Give epochs={dagger_rounds + 1}, or fewer rounds."
        raise wrong_argument("dagger_rounds", f"fewer than the {epochs} epochs", dagger_rounds, remedy)
    return dagger_rounds


def check_demonstrations(given: Any) -> None:
    """Refuse what are neither demonstrations nor a file of them.

    Raises:
        ValueError: they are something else, such as a dictionary of arrays.
    """
    if not (given is None or isinstance(given, Demonstrations | str | Path)):
        remedy = "Give Demonstrations(tasks, observation, action, task, solved), of arrays or tensors."
        got = type(given).__name__
        raise wrong_argument("demonstrations", "dendrite_zoo.rl.Demonstrations, or a file of them", got, remedy)


def check_without_expert(specs: Sequence[TaskSpec], dagger_rounds: int, demonstrations: Any) -> None:
    """Refuse what an expert is needed for, where nobody shows tasks of one's own.

    Raises:
        ValueError: there are no demonstrations, or there are to be rounds of DAgger.
    """
    names = ", ".join(spec.name for spec in specs if not isinstance(spec, MetaWorldTask))
    if demonstrations is None or (isinstance(demonstrations, str | Path) and not Path(demonstrations).is_file()):
        missing = "none" if demonstrations is None else f"no file {demonstrations}"
        raise ValueError(
            f"Expected an `expert`, or `demonstrations` that exist, for only Meta-World's tasks have scripted experts, "
            f"but got {missing} of {names}. Give a policy that shows what to do, or a function: expert=policy."
        )
    if dagger_rounds:
        words = f"0 without an `expert`, who says what is right where the policy goes in {names}"
        raise wrong_argument("dagger_rounds", words, dagger_rounds, "Give dagger_rounds=0, or expert=.")


def check_given(demonstrations: Demonstrations, observation_size: int, action_size: int) -> None:
    """Refuse demonstrations of other sizes than the tasks have.

    Raises:
        ValueError: they are.
    """
    sizes = {"observation": observation_size, "action": action_size}
    for name, size in sizes.items():
        shape = tuple(getattr(demonstrations, name).shape)
        if shape[-1] != size:
            remedy = f"The environments of these tasks have {name}s of {size} numbers."
            raise wrong_argument("demonstrations", f"of {name}s (N, {size})", shape, remedy)


def refuse_unsolved(names: Sequence[str], parts: Sequence[Demonstrations], *, are_given: bool) -> None:
    """Refuse tasks of which there is nothing to learn from.

    Raises:
        ValueError: there are some.
    """
    if not (unsolved := ", ".join(name for name, part in zip(names, parts, strict=True) if len(part) == 0)):
        return
    if are_given:
        raise ValueError(
            f"Expected `demonstrations` with several rows of each task that are `solved`, but got none, or too few, of "
            f"{unsolved}. Where it is not known whether they are, say True for all."
        )
    raise ValueError(
        f"Expected an episode of each task that its expert solved, but got none of {unsolved}. "
        "Raise `episodes_per_task`, leave the task out, or leave `success` out of a TaskSpec: all episodes "
        "of its expert are then learned from."
    )


def hold_out(part: Demonstrations) -> tuple[Demonstrations, Demonstrations]:
    """The rows of a task to train on, and its last tenth, one at least, to validate on.

    Example:
        >>> rows = torch.arange(20)
        >>> one = Demonstrations(("lift",), rows[:, None], rows[:, None] / 20, 0 * rows, rows >= 0)
        >>> [len(part) for part in hold_out(one)]
        [18, 2]
    """
    first = len(part) - max(1, len(part) // 10)
    rows = torch.arange(len(part))
    return part.select(rows[:first]), part.select(rows[first:])


def load_or_collect(
    path: Path, specs: Sequence[TaskSpec], trainer: Trainer | None, num_processes: int, fast: bool, **arguments: Any
) -> Demonstrations:
    """Load demonstrations, after they were collected if there is no such file; of several processes the first collects.

    A file may have further tasks, and another order.

    Args:
        path: of the file.
        specs: the tasks.
        trainer: whose processes wait for each other.
        num_processes: of environments.
        fast: faster Python paths of the environments.
        **arguments: further ones of `dendrite_zoo.rl.collect_demonstrations`, which decide the content.

    Raises:
        ValueError: the file lacks a task, or was collected with other arguments.
    """
    if (is_first := trainer is None or trainer.is_global_zero) and (collects := not path.is_file()):
        collect_demonstrations(specs, num_processes=num_processes, fast=fast, progress=True, **arguments).save(path)
    if trainer is not None:
        trainer.strategy.barrier()
    tasks = [spec.name for spec in specs]
    demonstrations, expected = _load(path, tasks), collection_config(tasks=specs, **arguments)
    found = demonstrations.config
    if found is None:
        rank_zero_warn(
            f"{path} does not say how it was collected, as files of earlier versions do not. It is assumed to be as "
            f"expected here: {_words(expected)}. If it is not, remove it to have it collected anew."
        )
    elif other := _differences(found, expected):
        raise ValueError(
            f"Expected {path} to be collected with {_words({name: expected.get(name) for name in other})}, but got "
            f"{_words({name: found.get(name) for name in other})}. Give the arguments that it was collected with, or "
            "another file or folder, or remove it to have it collected anew. To train on it as it is, give "
            "demonstrations=Demonstrations.load(path)."
        )
    elif is_first and not collects:
        _compare_starts(demonstrations, specs, path)
        _compare_actions(demonstrations, arguments.get("expert"), path)
    return demonstrations


def _compare_starts(demonstrations: Demonstrations, specs: Sequence[TaskSpec], path: Path) -> None:
    """Warn where environments of the right names start otherwise than a file says."""
    config, others = demonstrations.config or {}, []
    for task, spec in enumerate(specs):
        first = (demonstrations.task == task).nonzero()[:1, 0]
        if not isinstance(spec, MetaWorldTask) and len(first):
            env = spec.make()
            start = torch.from_numpy(spec.begin(env, start_seed(config["seed"], config["split"], 0)))
            close(env)
            seen = demonstrations.observation[first[0]]
            others += [spec.name] * (not torch.allclose(start.to(seen), seen, rtol=1e-4, atol=1e-4))
    if others:
        rank_zero_warn(
            f"{path} has tasks of these names, but the first episode of {', '.join(others)} started otherwise than the "
            "environment does now. The file is used as it is: remove it to have it collected anew, or give another "
            "file or folder."
        )


def _compare_actions(demonstrations: Demonstrations, expert: Act | None, path: Path) -> None:
    """Warn where an expert of the right name shows other actions than a file has of it."""
    if expert is None or not len(demonstrations):
        return
    rows = torch.linspace(0, len(demonstrations) - 1, COMPARED).long()
    seen, index = demonstrations.observation[rows].double().numpy(), demonstrations.task[rows].numpy()
    shown = torch.from_numpy(checked_actions(expert(seen, index), (COMPARED, demonstrations.action.shape[1])))
    differs = (shown.clamp(-1, 1) - demonstrations.action[rows]).abs().amax(1) > 0.01
    if bool(differs.double().mean() > 0.5):
        rank_zero_warn(
            f"{path} has actions of an expert of this name, but in {int(differs.sum())} of {COMPARED} of its "
            "observations `expert` now shows another action. The file is used as it is: remove it to have it collected "
            "anew, give another file or folder, or give the expert a name of its own. If the expert draws its actions "
            "at random, nothing is wrong."
        )


def _load(path: Path, tasks: Sequence[str]) -> Demonstrations:
    """The demonstrations of some tasks in a file, which says how these were collected."""
    try:
        found = Demonstrations.load(path).among(tasks)
    except ValueError as error:
        raise ValueError(f"{error} The file is {path}. Give another file or folder.") from None
    if found.config is None or not isinstance(experts := found.config.get("expert"), Mapping):
        return found
    shown = {name: expert for name, expert in experts.items() if name in tasks}  # by experts of ours
    return replace(found, config={**found.config, "expert": shown or None})


def _words(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in config.items())
