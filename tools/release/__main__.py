"""Rehearse a release on this machine: python -m tools.release, or make release-dry-run.

Builds wheel and sdist, checks them, installs them in fresh environments with the newest and with the oldest
dependencies, builds every card, publishes the zoo to a loopback Hub, loads and measures each model from there, and
prints what a maintainer does to release for real. Nothing leaves this machine. Python's standard library is enough.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tools.release import distributions, environments, hub
from tools.release.steps import Report, Skipped

ROOT = Path(__file__).parents[2]


def torch_version() -> str:
    """The version that is tested."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("torch==") for line in lines if line.startswith("torch=="))


def options() -> argparse.Namespace:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = about.add_argument
    add("--work", type=Path, default=ROOT / "build" / "release", help="where it works; emptied at the start")
    add("--repository", default="https://github.com/ORG/dendrite-zoo", help="the address that PyPI's page links to")
    add("--namespace", default="ORG", help="of the Hub, for the page at the end")
    add("--pythons", default=",".join(environments.PYTHONS), help="versions to try, by commas")
    add("--torch", default=torch_version(), help="that is installed first, by pip (default: that of constraints.txt)")
    add("--extras", default=f"{environments.EXTRAS},metaworld", help="that are installed, by commas")
    add("--goals", type=int, default=2, help="that each robot skill is measured on")
    datasets = os.environ.get("DENDRITE_ZOO_DATASETS")
    add("--datasets", type=Path, default=datasets, help="a mirror of the Hub's data sets, FOLDER/ylecun/mnist/...")
    return about.parse_args()


def main() -> int:
    given = options()
    if given.work.exists():
        shutil.rmtree(given.work)
    log = given.work / "log"
    log.mkdir(parents=True)
    report = Report(log)
    step = report.step
    step("workflows", partial(distributions.workflows, report, given.work))
    step("CITATION.cff", partial(distributions.citation, report, given.work))
    if step("wheel and sdist", partial(distributions.build, report, given.work, given.repository)):
        step("page on PyPI", partial(distributions.page, report, given.work))
        if (python := in_environments(report, given)) is None:
            report.step("zoo on a loopback Hub", partial(skip, "no environment with the newest dependencies"))
        else:
            on_the_hub(report, given, python)
    print(f"\n{report.table()}\n\nThe output of every command: {log}\n")
    if report.failed:
        print("The rehearsal failed: nothing should be released.")
        return 1
    print(what_to_do(given.namespace))
    return 0


def skip(why: str) -> str:
    raise Skipped(why)


def in_environments(report: Report, given: argparse.Namespace) -> Path | None:
    """The newest dependencies with each Python, the oldest with the first that has torch; give the last newest one."""
    last: Path | None = None
    tried_oldest = False
    for version in given.pythons.split(","):
        python = environments.interpreter(version)
        if python is None:
            report.step(f"Python {version}", partial(skip, f"there is no Python {version} on this machine"))
            continue
        wheel, sdist = distributions.wheel(given.work), distributions.sdist(given.work)
        if not tried_oldest:
            tried_oldest, _ = environment(
                report,
                f"Python {version}, oldest",
                given.work / f"oldest-{version}",
                python,
                given.torch,
                lambda inside, sdist=sdist, wheel=wheel: environments.oldest(
                    report, inside, sdist, wheel, given.extras, environments.tool(report, given.work / "tools", "uv")
                ),
            )
        passed, inside = environment(
            report,
            f"Python {version}, newest",
            given.work / f"newest-{version}",
            python,
            given.torch,
            lambda inside, wheel=wheel: environments.newest(report, inside, wheel, given.extras, given.torch),
        )
        last = inside if passed else last
    return last


def environment(
    report: Report, name: str, folder: Path, python: Path, torch: str, work: Callable[[Path], str]
) -> tuple[bool, Path]:
    """One fresh environment, and what is done in it; without torch the modules are compiled at least."""

    def all_of_it() -> str:
        try:
            inside = environments.make(report, folder, python, torch)
        except Skipped as reason:
            wheel = next((folder.parent / "dist").glob("*.whl"))
            environments.syntax(report, python, wheel, folder / "wheel")
            raise Skipped(f"every module compiles, nothing was run: {reason}") from None
        return work(inside)

    return report.step(name, all_of_it), folder / "bin" / "python"


def on_the_hub(report: Report, given: argparse.Namespace, python: Path) -> None:
    """Cards, publishing, and every model measured from there."""
    report.step("cards", partial(hub.cards, report, python, given.work))
    with hub.served(python, given.work, given.datasets) as client:
        if not report.step("publish to a loopback Hub", partial(hub.publish, report, python, given.work, client)):
            return
        for name in hub.registry():
            if name in hub.with_weights():
                work = partial(hub.measure, report, python, given.work, client, name, given.goals)
            else:
                why = "its weights are not here; `dendrite-zoo list` says how to train it"
                work = partial(skip, why)
            report.step(name, work)


def what_to_do(namespace: str) -> str:
    """The page for the maintainer who releases."""
    text = (ROOT / "RELEASING.md").read_text(encoding="utf-8")
    entries = hub.registry()
    sizes = {name: sum(file["size"] for file in entries[name]["files"].values()) / 1e6 for name in hub.with_weights()}
    repos = "\n".join(f"- `{namespace}/{name}`, {size:.1f} MB" for name, size in sizes.items())
    text = text.replace("ORG", namespace).replace("VERSION", distributions.version())
    return text.replace("<!-- repos -->", repos)


if __name__ == "__main__":
    sys.exit(main())
