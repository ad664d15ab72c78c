"""Every block of code in README and docs runs, in the order of its page: `make docs` runs this before it builds.

A block of Python sees what the blocks before it on its page have made, and what prelude.py has. A comment that no
reader sees, ``<!-- setup``, holds what stands for a reader's own data and networks, and makes training short.
Commands run, too. ``<!-- not run: why -->`` above a block leaves it out. Whole examples, ``<!-- example: ... -->``,
are run by tests/test_examples.py.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from dendrite_zoo.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>example|not run): (?P<said>[^>]*?) -->\n)?"
    r"^(?:```(?P<language>\w*)\n(?P<code>.*?)^```$|<!-- setup\n(?P<setup>.*?)^-->$)",
    re.DOTALL | re.MULTILINE,
)
PRELUDE = (ROOT / "docs" / "prelude.py").read_text(encoding="utf-8")
TRAINER = {
    "ENABLE_PROGRESS_BAR": "false",
    "ENABLE_MODEL_SUMMARY": "false",
    "ACCELERATOR": "cpu",
    "LIMIT_TRAIN_BATCHES": "3",
}
"""Lightning's defaults for a Trainer that does not say otherwise."""
SET_UP = {"pip", "apt-get", "make", "pre-commit", "git"}
"""Commands that set a machine up, which a test had better not."""
SMALLER = {
    "fit permuted-digits": ["--data.init_args.num_tasks", "2", "--data.init_args.epochs_per_task", "1"],
    "evaluate metaworld-mt10": ["--goals", "1", "--processes", "0"],
}
"""What makes a command short. Of any other recipe the configuration is read, checked and printed."""


class Block(NamedTuple):
    language: str
    code: str
    line: int
    mark: str | None
    said: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        language, code = ("python", match["setup"]) if match["setup"] else (match["language"], match["code"])
        start = match.start("setup" if match["setup"] else "code")
        found.append(Block(language, code, text.count("\n", 0, start), match["mark"], match["said"]))
    return [block for block in found if block.mark not in ("example", "not run")]


def run_command(line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words or words[0] in SET_UP:
        return
    assert words[0] == "dendrite-zoo", f"Expected a command of dendrite-zoo, but got: {line}"
    command, *options = words[1:]
    if command == "fit" and "--resume" not in options and "list" not in options:
        options += SMALLER.get(f"fit {options[options.index('--config') + 1]}", ["--print_config"])
    elif command == "evaluate":
        options += SMALLER[f"evaluate {options[0]}"]
    try:
        main([command, *options])
    except SystemExit as done:
        assert not done.code, f"{line}: {done.code}"


def check_yaml(code: str) -> None:
    """A recipe is read as `fit` reads it; a part of one is YAML."""
    if {"model", "data"} <= yaml.safe_load(code).keys():
        Path("recipe.yaml").write_text(code, encoding="utf-8")
        run_command("dendrite-zoo fit --config recipe.yaml")


@pytest.mark.filterwarnings("ignore")  # of short training: few batches, few workers
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(page)
    if not found:
        pytest.skip("has no code")
    monkeypatch.chdir(tmp_path)
    for name, value in TRAINER.items():
        monkeypatch.setenv(f"PL_TRAINER_{name}", value)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(PRELUDE, names)
    for block in found:
        if block.language == "python":
            exec(compile("\n" * block.line + block.code, str(page), "exec"), names)
        elif block.language == "yaml":
            check_yaml(block.code)
        elif block.language == "bash":
            for line in block.code.replace("\\\n", " ").splitlines():
                run_command(line)
        else:
            assert block.language in ("text", "ts", ""), f"{page.name}:{block.line}: what is {block.language}?"
