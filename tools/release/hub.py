"""The zoo on a Hub of one's own: every model is published there, loaded from there, and measured again."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.release.distributions import ROOT
from tools.release.steps import Failed, Report, Skipped

CARDS = ROOT / "model_cards"
NAMESPACE = "me"
TOLERANCE = 2e-3  # a few images lie on the border, where another processor rounds to the other side


def registry(folder: Path = CARDS) -> dict[str, dict[str, Any]]:
    """The entries of the zoo, as their registry has them."""
    return dict(json.loads((folder / "registry.json").read_text(encoding="utf-8")))


def with_weights() -> list[str]:
    """The entries that can be published from here."""
    return [name for name in registry() if (CARDS / name / "model.safetensors").is_file()]


@contextlib.contextmanager
def served(python: Path, work: Path, datasets: Path | None) -> Iterator[dict[str, str]]:
    """``dendrite-zoo hub`` while the context lasts; gives the environment in which a client speaks to it."""
    command = [python.with_name("dendrite-zoo"), "hub", "--port", "0"]
    command += ["--datasets", datasets] if datasets else []  # type: ignore[list-item]
    process = subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith("export ")), None)
        if line is None:
            raise Failed(f"dendrite-zoo hub ended with {process.wait()}")
        theirs = dict(word.split("=", 1) for word in shlex.split(line)[1:])
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
        yield {**ours, **theirs, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "2"}
    finally:
        process.terminate()
        process.wait()


def cards(report: Report, python: Path, work: Path) -> str:
    """The card of every entry, as it would be published."""
    for name in with_weights():
        repo = f"{NAMESPACE}/{name}"
        said = report.run(
            python.with_name("dendrite-zoo"), "publish", CARDS / name, "--repo", repo, "--dry-run", cwd=work
        )
        if not said.startswith("---\n") or "library_name: dendrite-zoo" not in said or "# " not in said:
            raise Failed(f"the card of {name} has no metadata or no title")
        shown = f'load("{repo}")'
        if shown not in said:
            raise Failed(f"the card of {name} does not show {shown}")
    return f"{len(with_weights())} cards"


def publish(report: Report, python: Path, work: Path, client: dict[str, str]) -> str:
    """Make the repos as a person does, then publish as CI does: as their trusted publisher, without a token."""
    shelf = work / "model_cards"
    shutil.copytree(CARDS, shelf, ignore=shutil.ignore_patterns("__pycache__"))
    for name in with_weights():
        report.run(python.with_name("hf"), "repos", "create", f"{NAMESPACE}/{name}", environment=client)
    job = {name: value for name, value in client.items() if name != "HF_TOKEN"}
    job["HF_OIDC_ID_TOKEN"] = "loopback_identity"
    script = ROOT / "tools" / "publish_all.py"
    how = ["--trusted", "--namespace", NAMESPACE, "--folder", shelf]
    report.run(python, script, *how, cwd=work, environment=job)
    pinned = [name for name, entry in registry(shelf).items() if entry["repo"] and entry["revision"]]
    if sorted(pinned) != sorted(with_weights()):
        raise Failed(f"the registry has commits of {', '.join(pinned)} alone")
    again = report.run(python, script, *how, cwd=work, environment=job)
    if again.count("is published already") != len(pinned):
        raise Failed("publishing the same again made new releases")
    return f"{len(pinned)} models; their commits and sha256s stand in the registry, and the same again changes nothing"


def measure(report: Report, python: Path, work: Path, client: dict[str, str], name: str, goals: int) -> str:
    """Load a model by its pinned commit in a process without a token, and compare its scores with ``results.json``."""
    entry = registry(work / "model_cards")[name]
    own = json.loads((CARDS / name / "results.json").read_text(encoding="utf-8"))[0]
    if json.loads((CARDS / name / "config.json").read_text(encoding="utf-8"))["model_type"] == "adapted-backbone":
        raise Skipped("its backbone is not published with it; tests/test_zoo.py measures it where there is a copy")
    reader = {key: value for key, value in client.items() if key != "HF_TOKEN"} | {"HF_HOME": str(work / "reader")}
    scores = work / f"{name}.json"
    command = [python.with_name("dendrite-zoo"), "evaluate", f"{entry['repo']}@{entry['revision']}", "--json", scores]
    if own["benchmark"].startswith("metaworld"):
        if subprocess.run([python, "-c", "import metaworld"], capture_output=True, check=False).returncode:
            raise Skipped("its robots need the extra [metaworld], which is not there")
        command += ["--goals", str(goals)]
    elif "mnist" in own["benchmark"] and not _has_mnist(client):
        raise Skipped("there is no MNIST here: DENDRITE_ZOO_DATASETS=FOLDER names a mirror, FOLDER/ylecun/mnist/...")
    start = time.monotonic()
    report.run(*command, cwd=work, environment=reader)
    measured = json.loads(scores.read_text(encoding="utf-8"))
    compare = _goals if "first_success" in measured else _accuracy
    return f"{compare(measured, own)} ({time.monotonic() - start:.0f} s)"


def _has_mnist(client: dict[str, str]) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{client['HF_ENDPOINT']}/api/datasets/ylecun/mnist"):
            return True
    except urllib.error.HTTPError:
        return False


def _accuracy(measured: dict[str, Any], own: dict[str, Any]) -> str:
    """Of a classifier: its mean over all tasks, beside that of the seed whose weights are shipped."""
    values = measured[own["context_at_test"]]
    mean = sum(values) / len(values)
    expected = own.get("average_accuracy_per_seed", [own["average_accuracy"]])[0]
    if len(values) != own["num_tasks"] or abs(mean - expected) > TOLERANCE:
        raise Failed(f"accuracy {mean:.4f} over {len(values)} tasks, but results.json says {expected:.4f}")
    return f"accuracy {mean:.4f}, as results.json says ({expected:.4f})"


def _goals(measured: dict[str, Any], own: dict[str, Any]) -> str:
    """Of a policy: which of the first goals it reaches, beside which it reached."""
    goals, first = measured["num_goals"], own["first_success"]
    first = first[0] if isinstance(first[0][0], list) else first  # the shipped one of several seeds
    pairs = [
        (now > 0, then > 0)
        for now_of_task, of_task in zip(measured["first_success"], first, strict=True)
        for now, then in zip(now_of_task, of_task[:goals], strict=True)
    ]
    other, reached = sum(now != then for now, then in pairs), sum(now for now, _ in pairs)
    if measured["tasks"] != own["tasks"] or other > max(1, len(pairs) // 50):
        raise Failed(f"{other} of {len(pairs)} goals end in another way than results.json says")
    return f"{reached} of {len(pairs)} goals reached, {other} of them otherwise than results.json says"
