"""The zoo's registry: complete, honest about what is bundled, written whole."""

import json
import re

import pytest

from dendrite_zoo.hub import HubModel, artifact, registry
from dendrite_zoo.hub.resolve import resolve


def test_every_entry_is_complete():
    for name, entry in registry.entries().items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name)
        assert entry.trained_on and entry.build
        own = json.loads((entry.folder / "results.json").read_text(encoding="utf-8"))[0]
        assert entry.headline.startswith(f"{own['average_accuracy']:.3f} mean "), name
        assert (entry.revision is None) or (entry.repo and re.fullmatch("[0-9a-f]{40}", entry.revision))
        assert {"README.md", "config.json", "results.json"} <= {path.name for path in entry.folder.iterdir()}
        for file, pin in entry.files.items():
            path = entry.folder / file
            if path.exists():
                assert artifact.sha256(path) == pin["sha256"]
                assert path.stat().st_size == pin["size"]


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    (tmp_path / "registry.json").write_text("{}")
    monkeypatch.setattr(registry, "cards_folder", lambda: tmp_path)
    return tmp_path


def test_entries_are_written_and_read(shelf):
    first = registry.Entry("b", trained_on="x", files={"config.json": {"sha256": "0", "size": 3}})
    registry.record(first)
    registry.record(registry.Entry("a", repo="org/a", revision="0" * 40))
    assert list(registry.entries()) == ["a", "b"]
    assert registry.entries()["b"] == first and first.size == 3
    assert [path.name for path in shelf.iterdir()] == ["registry.json"]


def test_an_unknown_name_names_the_nearest(shelf):
    registry.record(registry.Entry("permuted-digits"))
    with pytest.raises(ValueError, match="Did you mean 'permuted-digits'.*dendrite-zoo list"):
        HubModel.from_pretrained("permuted-digit")


def test_an_unpublished_entry_names_the_command_that_builds_it_and_what_to_load_then(shelf):
    registry.record(
        registry.Entry("permuted-mnist", build="dendrite-zoo fit --config one && dendrite-zoo fit --config two")
    )
    with pytest.raises(FileNotFoundError, match="`dendrite-zoo fit --config one .* two`. Then load 'runs/two'"):
        HubModel.from_pretrained("permuted-mnist")


def test_a_bundled_entry_is_checked_against_its_pin(shelf):
    from tests.hub.toy import Toy

    Toy(4, 2).save_pretrained(shelf / "toy-digits")
    registry.record(registry.Entry("toy-digits", files=registry.pins(shelf / "toy-digits")))
    assert registry.entries()["toy-digits"].bundled
    assert type(HubModel.from_pretrained("toy-digits")) is Toy
    Toy(4, 2).save_pretrained(shelf / "toy-digits")
    with pytest.raises(ValueError, match="sha256 .*; expected"):
        HubModel.from_pretrained("toy-digits")


def test_a_misspelt_folder_is_answered_with_the_one_beside_it(tmp_path):
    (tmp_path / "permuted-digits").mkdir()
    with pytest.raises(FileNotFoundError, match="is no folder here.* Did you mean 'permuted-digits'?"):
        resolve(f"{tmp_path}/permuted-digit")
    with pytest.raises(FileNotFoundError, match="Check the path.$"):
        resolve(f"{tmp_path}/none/permuted-digits")
    for address, repo in (("org/repo/", "'org/repo'"), ("org/repo/tree/v1", "'org/repo@v1'")):
        with pytest.raises(FileNotFoundError, match=f"names the repo: {repo}.$"):
            resolve(f"https://huggingface.co/{address}")


def test_a_run_that_is_not_there_is_not_asked_of_the_hub_in_silence(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    assert str(resolve("runs/first")) == "runs/first@main" and not caplog.text, "an org like any other"
    (tmp_path / "runs" / "frist").mkdir(parents=True)
    assert str(resolve("runs/first")) == "runs/first@main"
    assert "There is no folder runs/first, so this is a repo of the Hub. Did you mean 'runs/frist'?" in caplog.text
