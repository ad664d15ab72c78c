"""What a visitor reads before the code: forms that GitHub takes, and an entry for the Hub whose lines run."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from dendrite_zoo.hub.config import LIBRARY_NAME

ROOT = Path(__file__).parents[2]
FORMS = sorted(ROOT.glob(".github/ISSUE_TEMPLATE/[!c]*.yml"))
LIBRARY = ROOT / "docs" / "hub-library.patch"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_an_issue_form_is_one_that_github_takes(form):
    """By https://docs.github.com/en/communities/using-templates-to-encourage-useful-issues-and-pull-requests."""
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert content["name"] and content["description"] and content["body"]
    inputs = [part for part in content["body"] if part["type"] != "markdown"]
    ids = [part["id"] for part in inputs]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w-]+", one) for one in ids)
    for part in inputs:
        assert part["type"] in {"checkboxes", "dropdown", "input", "textarea"} and part["attributes"]["label"]
        if part["type"] == "checkboxes":
            assert all(option["label"] for option in part["attributes"]["options"])


@pytest.mark.parametrize("name, kind", [("permuted-digits", "classifier"), ("metaworld-mt10", "policy")])
def test_what_the_hub_shows_beside_a_model_runs(name, kind):
    added = "".join(
        line[1:]
        for line in LIBRARY.read_text(encoding="utf-8").splitlines(keepends=True)
        if re.match(r"\+(?!\+)", line)
    )
    [snippet] = re.findall(rf"const dendrite_zoo_{kind} = .*?`(.*?)`", added, re.DOTALL)
    values = {"x": torch.rand(3, 64), "observation": torch.zeros(39)}
    exec(snippet.replace("${model.id}", name), values)
    assert values["logits"].shape == (3, 10) if kind == "classifier" else values["action"].shape == (4,)
    assert f'"{LIBRARY_NAME}": {{' in added
