"""Write where the repository is into README.md and pyproject.toml, before a build: PyPI's page has no relative links.

python tools/addresses.py https://github.com/ORG/dendrite-zoo v0.1.0
"""

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RELATIVE = r"(?![a-z][a-z+.-]*:|#)[^)\s\"]+"  # no scheme, and no place on the page itself
TARGET = re.compile(rf"""(?P<before>\]\(|\b(?:src|srcset|href)=")(?P<path>{RELATIVE})(?=[)"])""")
PICTURES = (".gif", ".jpg", ".png", ".svg")


def absolute_links(text: str, repository: str, revision: str) -> str:
    """Markdown whose links and pictures are found from anywhere; what stands in code stays as it is.

    Args:
        text: with links relative to the root of the repository.
        repository: its address on GitHub.
        revision: a tag, a branch or a commit.
    """

    def target(match: re.Match[str]) -> str:
        kind = "raw" if match["path"].endswith(PICTURES) else "blob"
        return f"{match['before']}{repository}/{kind}/{revision}/{match['path']}"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)  # every second one is code
    return "".join(part if n % 2 else TARGET.sub(target, part) for n, part in enumerate(parts))


def with_urls(pyproject: str, repository: str) -> str:
    """A pyproject.toml that names the repository, if it does not yet."""
    if "[project.urls]" in pyproject:
        return pyproject
    urls = {"Repository": "", "Documentation": "/tree/main/docs", "Changelog": "/blob/main/CHANGELOG.md"}
    lines = "".join(f'{name} = "{repository}{place}"\n' for name, place in {**urls, "Issues": "/issues"}.items())
    return pyproject.replace("[project.scripts]\n", f"[project.urls]\n{lines}\n[project.scripts]\n")


def write(root: Path, repository: str, revision: str) -> None:
    """Change README.md and pyproject.toml in a checkout that is to be built."""
    readme, pyproject = root / "README.md", root / "pyproject.toml"
    repository = repository.rstrip("/")
    readme.write_text(absolute_links(readme.read_text(encoding="utf-8"), repository, revision), encoding="utf-8")
    pyproject.write_text(with_urls(pyproject.read_text(encoding="utf-8"), repository), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", help="its address on GitHub")
    parser.add_argument("revision", help="the tag that is released")
    given = parser.parse_args()
    write(ROOT, given.repository, given.revision)
