"""Fresh environments with what is released: which Pythons there are, which torch, the newest and the oldest set."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

from tools.release.steps import Failed, Report, Skipped

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = "mnist,report,rl"
HERE = Path(__file__).parent


def interpreter(version: str) -> Path | None:
    """A Python of a version, on PATH or of pyenv, that runs; None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    places = [*sorted(pyenv.glob(f"{version}.*/bin/python")), shutil.which(f"python{version}"), sys.executable]
    code = "import sys, venv, ensurepip; print('{}.{}'.format(*sys.version_info))"
    for place in filter(None, places):
        answer = subprocess.run([place, "-c", code], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return Path(place)
    return None


def floors(wheel: Path, extras: str) -> list[str]:
    """The direct dependencies of a wheel with some extras, as requirements; torch is left out."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    wanted = []
    for requirement in metadata.get_all("Requires-Dist") or []:
        extra = re.search(r"""(?:and |; )extra == ["'](\w+)["']""", requirement)
        known = extra is None or extra[1] in extras.split(",")
        if known and not re.match(r"(torch|dendrite-zoo)\b", requirement):
            wanted.append(requirement.replace(extra[0] if extra else "\0", "").strip())
    return wanted


def only_with_cuda(report: str) -> bool:
    """Whether the torch that ``pip install --dry-run --report`` chose brings CUDA's libraries, gigabytes of them."""
    [torch] = json.loads(report)["install"]
    needs = torch["metadata"].get("requires_dist", [])
    return sys.platform == "linux" and any(re.match("nvidia|cuda|triton", need) for need in needs)


def make(report: Report, folder: Path, python: Path, torch: str) -> Path:
    """A fresh environment that has torch, for the CPU; give its Python.

    Raises:
        Skipped: for this Python there is only a torch with CUDA, or none.
    """
    report.run(python, "-m", "venv", folder)
    inside, chosen = folder / "bin" / "python", folder / "torch.json"
    ask = ["--dry-run", "--quiet", "--no-deps", "--ignore-installed", "--report", chosen, f"torch=={torch}"]
    try:
        report.run(inside, "-m", "pip", "install", *ask)
    except Failed as reason:
        raise Skipped(f"there is no torch {torch} for this Python: {reason}") from None
    if only_with_cuda(chosen.read_text(encoding="utf-8")):
        remedy = "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gives the one for the CPU"
        raise Skipped(f"torch {torch} for this Python brings gigabytes of CUDA; {remedy}")
    report.run(inside, "-m", "pip", "install", "--quiet", f"torch=={torch}")
    return inside


def syntax(report: Report, python: Path, wheel: Path, folder: Path) -> None:
    """Compile every module of a wheel, which needs no torch."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    report.run(python, "-m", "compileall", "-q", folder)


def newest(report: Report, python: Path, wheel: Path, extras: str, torch: str) -> str:
    """Install the wheel with the newest dependencies that it allows."""
    report.run(python, "-m", "pip", "install", "--quiet", f"{wheel}[{extras}]", f"torch=={torch}")
    return smoke(report, python)


def oldest(report: Report, python: Path, sdist: Path, wheel: Path, extras: str, uv: Path) -> str:
    """Install the sdist with each direct dependency at its floor, but for torch."""
    code = "from importlib.metadata import version; print(version('torch'))"
    torch = report.run(python, "-c", code).split()[-1]
    names = {"UV_FIND_LINKS": "PIP_FIND_LINKS", "UV_EXTRA_INDEX_URL": "PIP_EXTRA_INDEX_URL"}
    places = {ours: os.environ[theirs] for ours, theirs in names.items() if theirs in os.environ}
    wanted = [f"{sdist}[{extras}]", f"torch=={torch}", *floors(wheel, extras)]
    how = ["--quiet", "--python", python, "--resolution", "lowest-direct"]
    report.run(uv, "pip", "install", *how, *wanted, environment={**os.environ, **places})
    return smoke(report, python)


def smoke(report: Report, python: Path) -> str:
    """Load the zoo, predict, learn, in an empty folder."""
    empty = python.parents[1] / "empty"
    empty.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    said = report.run(python, "-I", HERE / "smoke.py", cwd=empty, environment={**environment, "OMP_NUM_THREADS": "2"})
    return said.strip().splitlines()[-1]


def tool(report: Report, folder: Path, name: str, package: str = "") -> Path:
    """A program of a package from PyPI: the one on PATH, or in an environment of the rehearsal.

    Raises:
        Skipped: it cannot be installed.
    """
    if found := shutil.which(name):
        return Path(found)
    python = folder / "bin" / "python"
    if not python.is_file():
        report.run(sys.executable, "-m", "venv", folder)
    try:
        report.run(python, "-m", "pip", "install", "--quiet", package or name)
    except Failed as reason:
        raise Skipped(f"{package or name} cannot be installed here: put {name} on PATH ({reason})") from None
    return folder / "bin" / name
