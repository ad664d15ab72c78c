"""PyPI shows README.md far from the repository: every link and picture has its whole address there."""

import re
import sys
from pathlib import Path

import pytest

from tools.addresses import absolute_links, with_urls, write

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which mypy needs there, too

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/org/zoo"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[docs](docs/README.md)", f"[docs]({REPOSITORY}/blob/v1/docs/README.md)"),
        ("![a picture](docs/a.png)", f"![a picture]({REPOSITORY}/raw/v1/docs/a.png)"),
        (
            "[![state](docs/a.svg)](LICENSE)",
            f"[![state]({REPOSITORY}/raw/v1/docs/a.svg)]({REPOSITORY}/blob/v1/LICENSE)",
        ),
        ('<img alt="x" src="docs/a.png">', f'<img alt="x" src="{REPOSITORY}/raw/v1/docs/a.png">'),
        ("[the zoo](#the-zoo), [paper](https://arxiv.org/abs/2201.00042)", None),
        ("```python\nrows[0](model)\n```\n", None),
    ],
)
def test_a_relative_link_gets_the_address_of_the_repository(written, expected):
    assert absolute_links(written, REPOSITORY, "v1") == (expected or written)


def test_the_readme_that_is_built_has_no_relative_link(tmp_path):
    for name in ("README.md", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    write(tmp_path, REPOSITORY, "v1")
    written = (tmp_path / "README.md").read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", written, flags=re.DOTALL)
    targets = re.findall(r'\]\(([^)]*)\)|(?:src|srcset|href)="([^"]*)"', prose)
    assert len(targets) > 10 and all(re.match("https?://|#", "".join(target)) for target in targets)
    for address in re.findall(rf"{REPOSITORY}/(?:blob|raw)/v1/([^)\"]+)", prose):
        assert (ROOT / address).exists()
    urls = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    assert urls["Repository"] == REPOSITORY and urls["Changelog"].startswith(REPOSITORY)
    once = (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    assert with_urls(once, "https://github.com/other/zoo") == once
