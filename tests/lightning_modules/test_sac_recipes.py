"""The recipes can be read: every name in them exists, and the networks they ask for can be built."""

from pathlib import Path

import pytest
import yaml

from dendrite_zoo.cli.main import main
from dendrite_zoo.models import load
from dendrite_zoo.models.policy import PolicyArguments
from dendrite_zoo.rl import task_names

CONFIGS = Path(__file__).parents[2] / "dendrite_zoo" / "configs"


@pytest.mark.parametrize("name", ["metaworld-mt3", "metaworld-mt10-paper", "metaworld-finetune"])
def test_a_recipe_is_understood(name, capsys, monkeypatch):
    command = ["dendrite-zoo", "fit", "--config", str(CONFIGS / f"{name}.yaml"), "--print_config"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    policy = model["model"]
    arguments = load(policy).config if isinstance(policy, str) else policy["init_args"]
    PolicyArguments(**arguments)  # which checks them
    tasks = task_names(data["tasks"])
    assert tuple(arguments["tasks"]) == tasks
    assert data["env_steps"] % (len(tasks) * data["envs_per_task"] * data["steps_per_round"]) == 0
