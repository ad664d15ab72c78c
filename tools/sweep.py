"""Run recipes for several seeds or values of an argument, and put their results into one file.

    python tools/sweep.py permuted-mnist-10-si --json results/continual/permuted-mnist-10-si.json
    python tools/sweep.py permuted-mnist-10 --by num_segments --values 2 50 --json results/sweeps/segments.json

Words after -- go to `dendrite-zoo fit`. A run whose folder is there already is not run again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from dendrite_zoo.cli.recipes import recipes


def options_of_runs(recipe: str, seeds: list[str], by: str | None, values: list[str]) -> dict[str, list[str]]:
    """The name of each run and its options: seeds draw the weights anew, and of a permuted stream the permutations."""
    if by:
        return {f"{recipe}-{by}-{value}": [f"--model.init_args.model.init_args.{by}", value] for value in values}
    permuted = "PermutedTasks" in recipes()[recipe].read_text(encoding="utf-8")
    options = ["--seed_everything", "--data.init_args.seed"] if permuted else ["--seed_everything"]
    return {f"{recipe}-{seed}": [f"{option}={seed}" for option in options] for seed in seeds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", choices=recipes(), metavar="RECIPE")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--by", help="an argument of the model, in place of seeds")
    parser.add_argument("--values", nargs="+", default=[], help="what that argument takes")
    parser.add_argument("--json", help="the merged records go there")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:end])
    command, folders = [sys.executable, "-m", "dendrite_zoo.cli.main"], []
    for recipe in given.recipes:
        for name, options in options_of_runs(recipe, given.seeds, given.by, given.values).items():
            folders.append(f"runs/{name}")
            if not Path(folders[-1], "model", "results.json").exists():
                fit = ["fit", "--config", recipe, "--name", name, *options, *words[end + 1 :]]
                subprocess.run([*command, *fit], check=True)
    subprocess.run([*command, "report", *folders, *(["--json", given.json] if given.json else [])], check=True)


if __name__ == "__main__":
    main()
