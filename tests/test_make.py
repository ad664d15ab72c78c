"""What `make` says where it cannot work."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
    done = subprocess.run(["make", target, "PYTHON=false"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (said,) = done.stdout.splitlines()
    assert said.startswith("dendrite_zoo/callbacks is a text file, not a link")
    assert "git clone -c core.symlinks=true" in said
    assert environment or not (tmp_path / ".venv").exists()
    (tmp_path / "dendrite_zoo" / "callbacks").unlink()
    (tmp_path / "dendrite_zoo" / "callbacks").symlink_to("../callbacks")
    done = subprocess.run(["make", target, "PYTHON=false"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("dendrite_zoo/lightning_modules is a text file")
