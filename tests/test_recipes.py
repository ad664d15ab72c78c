"""Every recipe is understood by the command that its first lines show."""

from pathlib import Path

import pytest
import yaml

from dendrite_zoo.cli import main

RECIPES = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


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
