"""Write where the repository is into README.md and pyproject.toml, before a build: PyPI's page has no relative links.

python tools/addresses.py https://github.com/ORG/dendrite-zoo v0.1.0
"""

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RELATIVE = r"(?![a-z][a-z+.-]*:|#)"  # no scheme, and no place on the page itself
LINK = re.compile(rf"(?P<picture>!?)\[(?P<text>[^\]]*)\]\({RELATIVE}(?P<path>[^)\s]+)\)")
ATTRIBUTE = re.compile(rf"""(?P<name>\bsrc|\bsrcset|\bhref)="{RELATIVE}(?P<path>[^"]+)\"""")


def absolute_links(text: str, repository: str, revision: str) -> str:
    """Markdown whose links lead to the repository at a revision, from anywhere.

    Args:
        text: with links relative to the root of the repository.
        repository: its address on GitHub.
        revision: a tag, a branch or a commit.
    """
    page, file = f"{repository}/blob/{revision}/", f"{repository}/raw/{revision}/"

    def link(match: re.Match[str]) -> str:
        return f"{match['picture']}[{match['text']}]({file if match['picture'] else page}{match['path']})"

    def attribute(match: re.Match[str]) -> str:
        return f'{match["name"]}="{page if match["name"] == "href" else file}{match["path"]}"'

    return ATTRIBUTE.sub(attribute, LINK.sub(link, text))


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
