"""Every recipe is understood by the command that its first lines show."""

import json
from pathlib import Path

import pytest
import yaml

from dendrite_zoo.cli.main import main

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "dendrite_zoo" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_is_understood(recipe, capsys, monkeypatch):
    head = [line for line in recipe.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(f"dendrite-zoo fit --config configs/{recipe.name}" in line for line in head)
    monkeypatch.setattr("sys.argv", ["dendrite-zoo", "fit", "--config", str(recipe), "--print_config"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["row"] and isinstance(config["ours"], bool)


@pytest.mark.parametrize("results", sorted((ROOT / "results" / "continual").glob("*.json")), ids=lambda file: file.stem)
def test_each_row_of_the_continual_table_has_its_recipe(results):
    """Which gives the model that was measured."""
    config = yaml.safe_load((ROOT / "dendrite_zoo" / "configs" / f"{results.stem}.yaml").read_text(encoding="utf-8"))
    (record,) = json.loads(results.read_text(encoding="utf-8"))
    assert (record["row"], record["ours"]) == (config["row"], config.get("ours", True))
    data, module = config["data"]["init_args"], config["model"]["init_args"]
    assert record["num_tasks"] == data["num_tasks"] and record["benchmark"] == "permuted-mnist"
    for name, value in module["model"]["init_args"].items():
        assert (record.get("model") or {name: value})[name] == value, name
