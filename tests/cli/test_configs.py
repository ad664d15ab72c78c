"""Every recipe is understood by the command that its first lines show."""

import json
from pathlib import Path

import pytest
import yaml

import dendrite_zoo.streams
from dendrite_zoo.cli.main import main
from dendrite_zoo.cli.recipes import expand, find
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.rl import MT10, MT50

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "dendrite_zoo" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_is_understood(recipe, capsys, monkeypatch):
    head = [line for line in recipe.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(f"dendrite-zoo fit --config {recipe.stem}" in line for line in head)
    assert head[0].endswith(".") and len(head[0]) <= 110
    monkeypatch.setattr("sys.argv", ["dendrite-zoo", "fit", "--config", recipe.stem, "--print_config"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["method"]


@pytest.mark.parametrize("results", sorted((ROOT / "results" / "continual").glob("*.json")), ids=lambda file: file.stem)
def test_each_method_of_the_continual_table_has_its_recipe(results):
    """Which gives the model that was measured."""
    config = yaml.safe_load((ROOT / "dendrite_zoo" / "configs" / f"{results.stem}.yaml").read_text(encoding="utf-8"))
    (record,) = json.loads(results.read_text(encoding="utf-8"))
    assert record["method"] == config["method"]
    data, module = config["data"]["init_args"], config["model"]["init_args"]
    assert record["num_tasks"] == data["num_tasks"] and record["benchmark"] == "permuted-mnist"
    for name, value in module["model"]["init_args"].items():
        assert (record.get("model") or {name: value})[name] == value, name


def test_all_recipes_are_listed_with_what_they_train(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    main(["fit", "--config", "list"])
    shown = capsys.readouterr().out.splitlines()
    for recipe in RECIPES:
        (line,) = [line for line in shown if f"│ {recipe.stem} " in line]
        assert recipe.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") in line


def test_a_recipe_is_found_by_name_unless_a_file_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find("permuted-digits") == str(ROOT / "dendrite_zoo" / "configs" / "permuted-digits.yaml")
    (tmp_path / "permuted-digits").write_text("model: mine\n")
    assert find("permuted-digits") == "permuted-digits"


@pytest.mark.parametrize("wrong", ["permuted-digit", "configs/permuted-digits.yaml"])
def test_a_wrong_recipe_is_one_line_with_the_near_name(wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", wrong])
    said = str(end.value.code)
    assert f"but got '{wrong}'. Did you mean 'permuted-digits'? See all recipes: dendrite-zoo fit" in said
    assert "\n" not in said


@pytest.mark.parametrize("form", [["--resume", "runs/x"], ["--resume=runs/x"]])
def test_resume_stands_for_the_config_the_name_and_the_checkpoint_of_a_run(form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="Expected `--resume` to be the folder of a run"):
        expand(["fit", *form])
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "config.yaml").touch()
    expected = ["fit", "--config", str(Path("runs/x/config.yaml")), "--name", "x", "--ckpt_path", "last", "--seed", "1"]
    assert expand(["fit", *form, "--seed", "1"]) == expected
    assert expand(["fit", "--resume", "x", "--seed", "1"]) == expected, "its name is enough"
    before = [*expected[:3], "--seed", "1", *expected[3:-2]]
    assert expand(["fit", "--seed", "1", *form]) == before, "an option holds wherever it stands"
    mine = ["--config", find("permuted-digits")]
    with_mine = [*expected[:3], *mine, *expected[3:-2]]
    assert expand(["fit", *mine, *form]) == with_mine, "whatever it says is compared with the run's"
    with pytest.raises(FileNotFoundError, match="no y/config.yaml. Did you mean 'runs/x'?"):
        expand(["fit", "--resume", "y"])


def test_an_option_before_the_recipe_holds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["fit", "--model.lr", "0.5", "--seed_everything=7", "--config", "permuted-digits", "--print_config"])
    said = capsys.readouterr().out
    assert "\n    lr: 0.5\n" in said and "seed_everything: 7\n" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", "Expected mine.yaml to be YAML, but got: while parsing"),
        (b"\xff\xfe", "Expected mine.yaml to be YAML, but got: 'utf-8' codec can't decode"),
        (b"some text", "Expected mine.yaml to hold options such as `model:` and `data:`, but got 'some text'"),
        (b"", "Expected mine.yaml to hold options such as `model:` and `data:`, but got None"),
    ],
)
def test_a_file_that_is_no_config_is_named(content, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ValueError) as refused:
        find("mine.yaml")
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("typed", [["--tasks", "a-v3,b-v3"], ["--tasks=[a-v3, 'b-v3']"]])
def test_other_tasks_are_those_of_the_data_and_of_the_policy_that_is_made(typed, tmp_path):
    own = {"tasks": ["x-v3", "y-v3", "z-v3"], "env_steps": 300, "warmup_steps": 10, "epochs": 2}
    own |= {"eval_at": [1, 2], "task_weights": {"x-v3": 2, "b-v3": 3}}
    made = {"class_path": "ActiveDendritePolicy", "init_args": {"tasks": own["tasks"], "winners": "context"}}
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({"model": {"init_args": {"model": made}}, "data": {"init_args": own}}))
    later = ["--data.init_args.env_steps", "7"]
    words = expand(["fit", *typed, "--config", str(file), *later])
    assert words[:3] == ["fit", "--config", str(file)] and words[-2:] == later
    options = dict(zip(words[3:-2:2], map(json.loads, words[4:-2:2]), strict=True))
    assert options == {
        "--data.init_args.tasks": ["a-v3", "b-v3"],
        "--data.init_args.eval_at": [1],
        "--data.init_args.task_weights": {"b-v3": 3},
        "--data.init_args.env_steps": 200,
        "--data.init_args.warmup_steps": 7,
        "--model.init_args.model": {**made, "init_args": {"tasks": ["a-v3", "b-v3"], "winners": "context"}},
    }


def test_a_loaded_policy_keeps_its_skills_and_has_others_as_further_ones():
    words = expand(["fit", "--config", "metaworld-scratch-new-skills", "--tasks", "sweep-v3,reach-v3"])
    options = dict(zip(words[3::2], map(json.loads, words[4::2]), strict=True))
    assert options["--data.init_args.tasks"] == ["sweep-v3", "reach-v3"]
    model = options["--model.init_args.model"]
    assert model["from_pretrained"] == "metaworld-mt10-scratch" and model["tasks"] == [*MT10, "sweep-v3"]
    words = expand(["fit", "--config", "metaworld-finetune", "--tasks", "push-v3"])
    assert "--model.init_args.model" not in words and words[words.index("--data.init_args.env_steps") + 1] == "5000"
    with pytest.raises(ValueError, match="a recipe of robot skills, but got one whose data have none: permuted-digits"):
        expand(["fit", "--config", "permuted-digits", "--tasks", "push-v3"])


def test_tasks_of_ones_own_are_chosen_by_their_names(tmp_path):
    specs = [{"class_path": "TaskSpec", "init_args": {"name": name, "make_env": f"mine.{name}"}} for name in ("a", "b")]
    recipe = {"data": {"init_args": {"tasks": specs, "env_steps": 100}}, "model": {"init_args": {}}}
    (tmp_path / "own.yaml").write_text(json.dumps(recipe))
    words = expand(["fit", "--config", str(tmp_path / "own.yaml"), "--tasks", "b"])
    options = dict(zip(words[3::2], map(json.loads, words[4::2]), strict=True))
    assert options == {"--data.init_args.tasks": specs[1:], "--data.init_args.env_steps": 50}
    with pytest.raises(ValueError, match="Expected `tasks` to be one of 'a', 'b', but got 'push-v3'"):
        expand(["fit", "--config", str(tmp_path / "own.yaml"), "--tasks", "push-v3"])


@pytest.mark.parametrize("count", [3, 13])
def test_tasks_with_units_of_their_own_have_as_many_as_in_the_recipe(count):
    words = expand(["fit", "--config", "metaworld-mt10-scratch", "--tasks", ",".join(MT50[:count])])
    options = dict(zip(words[3::2], map(json.loads, words[4::2]), strict=True))
    assert options["--data.init_args.env_steps"] == 360_000 * count
    policy = ActiveDendritePolicy(**options["--model.init_args.model"]["init_args"])
    units = [policy.mlp.active_units(task)[1].tolist() for task in range(count)]
    assert {len(own) for own in units} == {96} and sorted(sum(units, [])) == list(range(96 * count))


@pytest.mark.parametrize("recipe", [path for path in RECIPES if "metaworld" in path.stem], ids=lambda path: path.stem)
def test_every_robot_recipe_can_have_other_tasks(recipe):
    chosen = ["faucet-open-v3", "handle-press-v3", "peg-insert-side-v3"]
    words = expand(["fit", "--config", recipe.stem, "--tasks", ",".join(chosen)])
    options = dict(zip(words[3::2], map(json.loads, words[4::2]), strict=True))
    data = yaml.safe_load(recipe.read_text(encoding="utf-8"))["data"]
    given = {name.rpartition(".")[2]: value for name, value in options.items() if name.startswith("--data")}
    arguments = {name: value for name, value in (data["init_args"] | given).items() if name != "exploration"}
    made = getattr(dendrite_zoo.streams, data["class_path"])(**arguments)
    assert made.tasks == tuple(chosen)
