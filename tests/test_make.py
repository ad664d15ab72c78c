"""What `make` says where it cannot work."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
"""Without what `make test` tells the makes below it, which would name their folders."""


def make(target, folder):
    command = ["make", target, "PYTHON=false"]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("target", ["demo", "test", "lint", "figures"])
@pytest.mark.parametrize("environment", [False, True], ids=["no environment", "environment"])
def test_a_checkout_without_links_gets_one_sentence_before_anything_else(target, environment, tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "dendrite_zoo").mkdir()
    for name in ("callbacks", "lightning_modules", "model_cards"):
        (tmp_path / name).mkdir()
        (tmp_path / "dendrite_zoo" / name).write_text(f"../{name}")  # as git writes a link that it cannot make
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    if environment:
        for name in ("pyvenv.cfg", ".dev", ".demo"):
            (tmp_path / ".venv").mkdir(exist_ok=True)
            (tmp_path / ".venv" / name).touch()
    done = make(target, tmp_path)
    assert done.returncode == 2
    (said,) = done.stdout.splitlines()
    assert said.startswith("dendrite_zoo/callbacks is a text file, not a link")
    assert "git clone -c core.symlinks=true" in said
    assert environment or not (tmp_path / ".venv").exists()
    (tmp_path / "dendrite_zoo" / "callbacks").unlink()
    (tmp_path / "dendrite_zoo" / "callbacks").symlink_to("../callbacks")
    done = make(target, tmp_path)
    assert done.stdout.startswith("dendrite_zoo/lightning_modules is a text file")
