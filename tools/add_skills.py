"""Add robot skills to a pretrained policy, one by one, and measure them and the change of what it knew before.

``python tools/add_skills.py`` adds ten to ``metaworld-mt10``; the record is ``results/metaworld/new-skills.json``.
Each skill is learned by imitation with ``learn="new"``, from a few demonstrations, played on goals that were never
seen, and saved; started again, it goes on with the first skill that was not.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer, seed_everything

import dendrite_zoo
from dendrite_zoo._core.files import to_json, write_atomically
from dendrite_zoo.lightning_modules import BehaviorCloning
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.records import ResultRecord
from dendrite_zoo.rl import evaluate_policy
from dendrite_zoo.streams import DemonstrationMixture

SKILLS = """
    button-press-v3 button-press-wall-v3 coffee-button-v3 door-close-v3 door-unlock-v3 faucet-open-v3 handle-press-v3
    plate-slide-v3 sweep-into-v3 hammer-v3
""".split()
METHOD = "active dendrites, learn='new'"


def experts(task: str, options: argparse.Namespace, *, rounds: int = 0) -> DemonstrationMixture:
    """The demonstrations of a task."""
    return DemonstrationMixture(
        [task],
        episodes_per_task=options.episodes,
        dagger_rounds=rounds,
        epochs=rounds + 1,
        updates_per_epoch=options.updates,
        batch_size_per_task=256,
        folder=options.folder / "demonstrations" / task,
        num_processes=0,
        fast=True,
        seed=options.seed,
    )


def change(policies: Sequence[ActiveDendritePolicy], tasks: Sequence[str], options: argparse.Namespace) -> float:
    """The largest difference of two policies' actions in some tasks, for the observations of their experts."""
    largest = 0.0
    for task in tasks:
        observations = experts(task, options).observations
        one, other = (policy.act_batch(observations, [task] * len(observations)) for policy in policies)
        largest = max(largest, float(abs(one - other).max()))
    return largest


def learn(policy: ActiveDendritePolicy, skill: str, options: argparse.Namespace) -> dict[str, Any]:
    """Teach a policy with room for a skill that skill."""
    seed_everything(options.seed, verbose=False)
    for earlier in (options.folder / "demonstrations" / skill).glob("round-*"):  # of a fit that was interrupted
        earlier.unlink()
    data = experts(skill, options, rounds=options.dagger_rounds)
    extended = policy.extend_normalizer(data.observations)
    module = BehaviorCloning(policy, learn="new", init_from="nearest", lr=options.lr)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(**data.trainer_kwargs(), **quiet, logger=False, accelerator="cpu")
    started = time.monotonic()
    trainer.fit(module, data)
    assert module.new is not None
    start = module.started_from[policy.task_index(skill)]
    return {
        "skill": skill,
        "started_from": None if start is None else policy.tasks[start],
        "normalizer_extended": extended,
        "parameters": module.new.num_parameters,
        "val_loss": float(trainer.callback_metrics["val/task_0/loss"]),
        "wall_time_s": round(time.monotonic() - started, 1),
    }


def add(options: argparse.Namespace) -> tuple[ActiveDendritePolicy, list[dict[str, Any]]]:
    """Learn the skills that were not learned yet, each after the one before."""
    place, learned = options.policy, []
    for skill in options.skills:
        folder = options.folder / skill
        if not (folder / "skill.json").is_file():
            before = dendrite_zoo.load(place)
            policy = dendrite_zoo.load(place, tasks=[*before.tasks, skill])
            found = learn(policy, skill, options)
            changed = change([before, policy], before.tasks, options)
            play = {"num_goals": options.goals, "fast": True, "stop_at_success": True, "num_processes": 0}
            report = evaluate_policy(policy, [skill], **play)
            policy.save_pretrained(folder)
            found |= {"change_of_others": changed, "success": report.mean}
            write_atomically(folder / "skill.json", to_json(found | {"first_success": report.first[0].tolist()}))
            print(found, flush=True)
        place = folder
        learned.append(json.loads((folder / "skill.json").read_text(encoding="utf-8")))
    return dendrite_zoo.load(place), learned


def main() -> None:
    """Add the skills, compare with the policy as it was, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--policy", default="metaworld-mt10", help="what dendrite_zoo.load takes")
    parser.add_argument("--skills", nargs="+", default=SKILLS)
    parser.add_argument("--folder", type=Path, default=Path("runs/new-skills"), help="of demonstrations and policies")
    parser.add_argument("--out", type=Path, default=Path("results/metaworld/new-skills.json"))
    parser.add_argument("--episodes", type=int, default=40, help="demonstrations of each skill")
    parser.add_argument("--dagger-rounds", type=int, default=2, help="of 20 episodes each, after as many updates")
    parser.add_argument("--updates", type=int, default=1500, help="before each round, and after the last")
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--goals", type=int, default=50, help="of each skill, to measure on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    policy, learned = add(options)
    known = dendrite_zoo.load(options.policy)
    success = [skill["success"] for skill in learned]
    record = ResultRecord.from_run(
        success,
        seed=options.seed,
        benchmark=f"{options.policy}-new-skills",
        method=METHOD,
        context_at_test="given",
        metric="success",
        command=shlex.join(["python", "tools/add_skills.py", *sys.argv[1:]]),
        tasks=options.skills,
        goals="test",
        num_goals=options.goals,
        first_success=[skill.pop("first_success") for skill in learned],
        change_of_known=change([known, policy], known.tasks, options),
        known=list(known.tasks),
        skills=learned,
        curve={str(n): float(np.mean(success[:n])) for n in (1, 3, 5, 10) if n <= len(success)},
        updates_per_skill=(options.dagger_rounds + 1) * options.updates,
        parameters=sum(parameter.numel() for parameter in policy.parameters()),
        parameters_per_skill=learned[-1]["parameters"],
        wall_time_s=sum(skill["wall_time_s"] for skill in learned),
    )
    write_atomically(options.out, to_json([record.to_json()]))
    print(f"{options.out}: mean {np.mean(success):.3f}, change of what was known {record.more['change_of_known']}")


if __name__ == "__main__":
    main()
