"""What a skill that is added gains from those before it, as Continual World measures it.

    dendrite-zoo fit --config metaworld-scratch-new-skills --name near
    dendrite-zoo fit --config metaworld-scratch-new-skills --model.init_args.init_from null --name draw
    python benchmarks/forward_transfer.py runs/near runs/draw

The two runs differ in where a skill starts: as a copy of the known skill with the highest return in it, or as a draw.
As subnetworks share nothing, the second learns each skill as it would alone. Success is that of the latest 20 episodes
in training, every ten rounds over the skill's share of them; a skill that rests keeps its last value.
"""

import argparse
from pathlib import Path

from dendrite_zoo.metrics import curve_transfer
from dendrite_zoo.records import read_metrics, read_records
from dendrite_zoo.report import write_record

PREFIX = "train/success/"


def curves(run: Path, rounds: int) -> dict[str, list[float]]:
    """The success of each task that was practised, a value every ten rounds of its share."""
    found: dict[str, dict[int, float]] = {}
    for row in read_metrics(run / "metrics.csv", lambda name: name == "step" or name.startswith(PREFIX)):
        for name in row.keys() - {"step"}:
            found.setdefault(name.removeprefix(PREFIX), {})[int(row["step"])] = row[name]
    return {task: _every_ten(values, min(values) // rounds * rounds, rounds) for task, values in found.items()}


def _every_ten(values: dict[int, float], first: int, rounds: int) -> list[float]:
    curve, last = [], 0.0
    for start in range(first, first + rounds, 10):
        last = next((values[step] for step in range(start, start + 10) if step in values), last)
        curve.append(last)
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("started", type=Path, help="run in which skills start as copies")
    parser.add_argument("drawn", type=Path, help="run in which they start from a draw")
    parser.add_argument("--rounds", type=int, default=500, help="of a skill")
    parser.add_argument("--out", type=Path, default=Path("results/metaworld/scratch-new-skills-transfer.json"))
    options = parser.parse_args()
    runs = {name: getattr(options, name) for name in ("started", "drawn")}
    by_run = {name: curves(run, options.rounds) for name, run in runs.items()}
    (record,) = read_records(runs["started"] / "results.json")
    skills = [
        {
            "skill": task,
            "started_from": record.more.get("started_from", {}).get(task),
            "forward_transfer": round(float(curve_transfer(by_run["started"][task], by_run["drawn"][task])), 4),
            "success_in_first_50_rounds": {name: round(sum(c[task][:5]) / 5, 4) for name, c in by_run.items()},
        }
        for task in record.more["tasks"]
    ]
    commands = {name: read_records(run / "results.json")[0].command for name, run in runs.items()}
    mean = round(sum(skill["forward_transfer"] for skill in skills) / len(skills), 4)
    result = {"commands": commands, "rounds": options.rounds, "forward_transfer": mean, "skills": skills}
    write_record(result | {"curves": by_run}, options.out)


if __name__ == "__main__":
    main()
