"""Tables of policies: robot skills, and environments of one's own."""

import json
from typing import Any

from dendrite_zoo.functional import forgetting, learning_accuracy
from dendrite_zoo.records import read_records
from dendrite_zoo.report import accuracy_by_tasks
from tools.pages.markdown import RESULTS, mean, seeds, table

ROBOTS = (
    *(
        "experts",
        "mt10",
        "finetune",
        "mt10-scratch",
        "mt10-scratch-shared",
        "mt10-scratch-mlp",
        "mt10-paper-equal-time",
        "mt10-sequence",
        "scratch-new-skills",
        "mt50",
        "mt50-scratch",
        "mt50-scratch-again",
    ),
    *("continual-5", "continual-50", "mt3-sac"),
)


def robots_table() -> str:
    """Success on unseen goals of every policy that was trained, and what was forgotten of tasks in a sequence."""
    rows = []
    for file in ROBOTS:
        for record in read_records(RESULTS / "metaworld" / f"{file}.json"):
            low, high = record.more["interval"]
            lost = "" if record.matrix is None else f"{float(forgetting(record.matrix)):.3f}"
            tasks = f"{record.num_tasks}{', one after another' * bool(lost)}"
            reached = f"{mean(record)} ({seeds(record)}; {low:.3f} to {high:.3f})"
            at_end = record.more.get("success_at_last_step")
            size = f"{record.parameters:,}" if record.parameters else ""
            rows.append([tasks, record.method, reached, "" if at_end is None else f"{at_end:.3f}", lost, size])
    return table(["tasks", "method", "goals reached", "at the last step", "forgetting", "parameters"], rows)


def new_skills_table(number: int) -> str:
    """The success of skills that were added to a policy one by one, and what that changed in those before."""
    record = read_records(RESULTS / "metaworld" / "new-skills.json")[number]
    rows, so_far = [], []
    for one in record.more["skills"]:
        so_far.append(one["success"])
        start = (one["started_from"] or "zeros").removesuffix("-v3")
        shown = [f"{one['success']:.2f}", f"{sum(so_far) / len(so_far):.3f}", f"{one['parameters']:,}"]
        rows.append([one["skill"].removesuffix("-v3"), start, *shown, f"{one['change_of_others']:g}"])
    trained = f"{record.more['parameters_per_skill']:,} of {record.parameters:,}"
    mean = f"{record.average_accuracy:.3f}"
    rows.append(["all ten", "", mean, mean, trained, f"{record.more['change_of_known']:g}"])
    head = ["skill", "started from", "success", "mean so far", "numbers trained"]
    return table([*head, "change of the actions before"], rows)


def transfer_table() -> str:
    """What skills added by trial and error gain where they start as copies of others."""
    run = json.loads((RESULTS / "metaworld" / "scratch-new-skills-transfer.json").read_text(encoding="utf-8"))
    rows = []
    for one in run["skills"]:
        first = [f"{one['success_in_first_50_rounds'][how]:.2f}" for how in ("started", "drawn")]
        start = (one["started_from"] or "a draw").removesuffix("-v3")
        rows.append([one["skill"].removesuffix("-v3"), start, *first, f"{one['forward_transfer']:.2f}"])
    rows.append(["mean", "", "", "", f"{run['forward_transfer']:.2f}"])
    return table(["skill", "started from", "success of its first 50 rounds", "from a draw", "forward transfer"], rows)


def parts_table() -> str:
    """What parts of the recipe of ten skills from nothing give: each left out or changed alone, early on."""
    rows = []
    for record in read_records(RESULTS / "metaworld" / "mt10-scratch-parts.json"):
        found = f"{record.average_accuracy:.3f}", f"{record.more['success_at_last_step']:.3f}"
        rows.append([record.more["changed"], *found, f"{record.more['updates']:,}", f"{record.parameters:,}"])
    return table(["changed", "goals reached", "at the last step", "updates", "parameters"], rows)


def fifty_skills_table() -> str:
    """Skills learned one after another: the mean over those learned so far, and what was forgotten."""
    rows = []
    for record in read_records(RESULTS / "metaworld" / "continual-50.json"):
        cells = accuracy_by_tasks(record)
        so_far = [f"{cells[n]:.3f}" if n in cells else "" for n in (5, 10, 20, 50)]
        trained = record.more.get("parameters_per_skill")
        size = f"{record.parameters:,}", "all" if trained in (None, record.parameters) else f"at most {trained:,}"
        kept = [f"{float(of(record.matrix)):.3f}" for of in (learning_accuracy, forgetting)]
        rows.append([record.method, seeds(record), *so_far, *kept, *size])
    counts = [f"{n} skills" for n in (5, 10, 20, 50)]
    head = ["method", "seeds", *counts, "each when learned", "forgetting", "parameters", "of which a skill trains"]
    return table(head, rows)


def own_environments(name: str) -> dict[str, Any]:
    """What was measured in environments of one's own."""
    file = RESULTS / "own-environments" / f"{name}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def pendulum_table() -> str:
    """The mean return of each task of the example, and how often the pendulum stands."""
    run = own_environments("pendulum")
    rows = [
        [task, f"{value:.0f}", f"{run['upright_at_some_step'][task]:.0%}"] for task, value in run["returns"].items()
    ]
    return table(
        [f"{run['env_steps']:,} steps of both", "mean return", f"upright, of {run['num_starts']} starts"], rows
    )


def walkers_table() -> str:
    """The mean return of each body after each was learned."""
    run = own_environments("walkers")
    rows = []
    for one in run.get("runs", ()):
        for body, returns in zip(run["bodies"], one["returns_after_each"], strict=True):
            rows.append([f"`{one['learn']}`", body, *(f"{value:.0f}" for value in returns)])
    return table(["", "after learning", *(f"return: {body}" for body in run.get("bodies", ()))], rows)
