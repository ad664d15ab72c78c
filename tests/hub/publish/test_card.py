"""The card: what it says comes from records, and what a person wrote stays."""

import re
from itertools import pairwise

import pytest
import torch
from huggingface_hub import ModelCard

from dendrite_zoo.hub import HubModel, artifact, full_config, register_model
from dendrite_zoo.hub.publish import publish
from dendrite_zoo.hub.publish.card import Card, _number
from dendrite_zoo.hub.publish.kinds import KINDS
from dendrite_zoo.hub.publish.merge import merge, own_text, pieces
from dendrite_zoo.models import ActiveDendritePolicy, RidgeClassifier
from dendrite_zoo.report.page import html
from tests.hub.conftest import RESULT
from tests.hub.toy import Toy
from tools.make_entry import make_entry


def card(results=(RESULT,), **changes):
    model = Toy(64, 10, hidden=(32,))
    model.results = list(results)
    return Card(model, full_config(model), **{"name": "alice/toy", "source": "alice/toy"} | changes)


def part(name, text=""):
    return f"<!-- dendrite-zoo:begin {name} -->{text}<!-- dendrite-zoo:end {name} -->"


def test_the_hub_reads_the_metadata(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(card(base_model="lab/base").text(picture=True))
    data = ModelCard.load(path).data
    assert data.library_name == "dendrite-zoo"
    assert data.license == "apache-2.0"
    assert data.base_model == "lab/base"
    assert data.pipeline_tag == "image-classification"
    assert {"dendrite-zoo", "continual-learning", "permuted-digits"} <= set(data.tags)
    accuracy, forgotten = data.eval_results
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.8766)
    assert (forgotten.metric_type, forgotten.metric_value) == ("forgetting", pytest.approx(0.03))
    assert accuracy.dataset_name == "permuted-digits"


def test_the_tables_hold_the_records_figures():
    text = card([RESULT, {**RESULT, "method": "dense MLP", "average_accuracy": 0.5}]).text(picture=True)
    for expected in (
        "| permuted-digits | ours | inferred | 3 | 0.877 ± 0.012 | 0, 1, 2 |",
        "| permuted-digits | dense MLP | inferred | 3 | 0.500 ± 0.012 | 0, 1, 2 |",
        "| forgetting | 0.030 | mean over 2 tasks |",
        "| backward transfer | -0.005 | mean over 2 tasks |",
        "| 1 | 0.880 | 0.880 | 0.800 | 0.080 |",
        "| 2 | 0.860 | · | 0.860 | · |",
        "dendrite-zoo fit --config configs/permuted-digits.yaml",
        "python 3.11.7, torch 2.13.0",
        "| hardware | a machine, 2 cores |",
        "| wall time | 12 min |",
        "| parameters | 4,321,",
        "![Accuracy on each task",
        "It holds 3 tasks.",
    ):
        assert expected in text, expected


def test_only_the_models_own_row_reaches_the_index():
    rows = [RESULT, {**RESULT, "context_at_test": "given"}, {**RESULT, "method": "dense MLP"}]
    (index,) = card(rows).metadata()["model-index"]
    names = [metric["name"] for result in index["results"] for metric in result["metrics"]]
    assert names == [
        "mean accuracy over 3 tasks, context inferred",
        "mean forgetting over 2 tasks, context inferred",
        "mean accuracy over 3 tasks, context given",
    ]


def test_a_mean_says_over_how_many_tasks_it_is():
    """Of two tasks one alone can be forgotten."""
    two = {**RESULT, "num_tasks": 2, "matrix": [[0.9, 0.1], [0.8, 0.7]], "task_accuracies": [0.8, 0.7]}
    text = card([two]).text(picture=False)
    assert "name: mean forgetting over 1 task, context inferred" in text
    assert "| forgetting | 0.100 | mean over 1 task |" in text and "| metric | value | |" in text
    recall = card([{**RESULT, "metric": "recall", "num_tasks": 1, "matrix": [[0.9]], "task_accuracies": [0.9]}])
    text = recall.text(picture=False)
    assert "1 task learned one after another: mean recall" in text and "name: mean recall over 1 task," in text


def test_sparsity_of_weights_is_measured_and_of_activations_recorded():
    record = {**RESULT, "sparsity": {"body.0": {"activation_sparsity": 0.95, "dead_units": 0.1}}}
    text = card([record]).text(picture=False)
    assert "| `body.0` | 0.000 | 0.950 | 0.100 | · |" in text
    assert "matrix.png" not in text


@pytest.mark.parametrize(
    "results",
    [
        [],
        [{}],
        [{"matrix": "no"}],
        ["no"],
        [{"matrix": [[1, 2]]}],
        [{name: None for name in ("versions", "sparsity", "subnetworks", "interval", "steps_to_success")}],
        [{"subnetworks": {"layers": {}}}],
        [
            {
                "subnetworks": {
                    "layers": {"a": {"units": 2, "active_share": None, "overlap": [[1]], "win_rates": [[1], [1]]}}
                }
            }
        ],
        [{"subnetworks": {"layers": {"a": {"units": 2, "active_share": 0.5, "overlap": [], "win_rates": []}}}}],
    ],
)
def test_a_record_without_figures_makes_a_card_all_the_same(results, tmp_path):
    made = card(results)
    text = made.text(picture=made.draw(tmp_path / "matrix.png"))
    (tmp_path / "README.md").write_text(text)
    ModelCard.load(tmp_path / "README.md")
    assert len([name for name, _ in pieces(text) if name]) == 5


def test_the_picture_is_drawn(tmp_path):
    assert card().draw(tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_with_the_records_numbers_is_linked_where_it_was_written(tmp_path, monkeypatch):
    assert "report.html" not in card().text(picture=False)
    assert "](report.html): one file of 1.0 MB;" in card().text(picture=False, page=982_377)
    monkeypatch.setattr(html, "_javascript", lambda: "")  # of the charts, which takes seconds to put together
    size = card().write_page(path := tmp_path / "report.html")
    assert size == path.stat().st_size and f'value="{RESULT["average_accuracy"]}"' in path.read_text()
    assert card([]).write_page(path) == card([{"benchmark": "b"}]).write_page(path) == 0  # no records, no whole one


def test_text_of_a_record_ends_no_part_and_no_row_of_the_card():
    hostile = "a <!-- dendrite-zoo:end results --> | b\n# Heading\n```\n"
    record = {**RESULT, **dict.fromkeys(("benchmark", "method", "command", "hardware"), hostile)}
    record |= {"versions": {hostile: hostile}, "sparsity": {hostile: {"dead_units": 0.5}}}
    text = card([record]).text(picture=False)
    assert [name for name, _ in pieces(text) if name] == ["summary", "use", "results", "training", "limits"]
    assert own_text(text) == "" and text.count("```") == card().text(picture=False).count("```")
    assert r"| a dendrite-zoo:end results \| b # Heading | inferred |" in text


def test_blocks_of_python_compile():
    for code in re.findall(r"```python\n(.*?)```", card().text(picture=False), re.DOTALL):
        compile(code, "card", "exec")


def test_a_generated_card_holds_no_text_of_a_person():
    assert own_text(card().text(picture=True)) == ""
    assert own_text("Mine. " + part("use", "x") + "\n\nMore.") == "Mine. More."


def test_a_persons_text_and_metadata_survive():
    old = card().text(picture=True)
    old = old.replace("license: apache-2.0", "license: mit\nlanguage: en").replace("tags:\n", "tags:\n- my-tag\n")
    old = old.replace("<!-- dendrite-zoo:begin use -->", "Written by a person.\n\n<!-- dendrite-zoo:begin use -->")
    old = old.replace("pip install dendrite-zoo", "edited inside a generated part")
    new = card([{**RESULT, "average_accuracy": 0.99}], base_model="lab/base").text(picture=True)
    merged = merge(old, new)
    assert "Written by a person.\n\n<!-- dendrite-zoo:begin use -->" in merged
    assert "edited inside" not in merged and "0.990 ± 0.012" in merged and "0.877 ±" not in merged
    data = ModelCard(merged).data
    assert (data.license, data.language, data.base_model) == ("mit", "en", "lab/base")
    assert "my-tag" in data.tags and "continual-learning" in data.tags
    assert data.eval_results[0].metric_value == 0.99
    assert merge(merged, new) == merged


def test_a_card_without_marks_gets_the_parts_at_its_end():
    new = card().text(picture=True)
    merged = merge("# Mine\n\nMy words.\n", new)
    assert ModelCard(merged).data.library_name == "dendrite-zoo"
    assert merged.index("My words.") < merged.index("dendrite-zoo:begin summary")
    assert own_text(merged) == "# Mine My words."
    assert merge(merged, new) == merged


def test_a_part_that_was_removed_stays_away():
    new = card().text(picture=True)
    old = re.sub(r"<!-- dendrite-zoo:begin limits.*?end limits -->", "", new, flags=re.DOTALL)
    assert "begin limits" not in merge(old, new)


def test_broken_metadata_of_a_person_is_replaced():
    merged = merge("---\n: [\n---\nMy words.\n", card().text(picture=True))
    assert ModelCard(merged).data.library_name == "dendrite-zoo"
    assert "My words." in merged


@pytest.mark.parametrize(
    "hostile",
    [
        "<!-- dendrite-zoo:begin use -->" * 50_000,
        "".join(f"<!-- dendrite-zoo:begin a{n} -->" for n in range(50_000)),
        "<!-- dendrite-zoo:begin a -->" * 25_000 + "<!-- dendrite-zoo:end b -->" * 25_000,
        "---\n" + "\n" * 1_000_000,
    ],
)
def test_a_hostile_card_takes_time_in_proportion(hostile):
    """Each of them took minutes where every mark was looked for from every other."""
    new = card().text(picture=False)
    assert own_text(hostile) == " ".join(hostile.split())
    assert merge(hostile, new).endswith(pieces(new)[-2][1] + "\n")


@pytest.mark.parametrize(
    "metadata",
    ["self: 1", "1: 2", "- a", "a: !!timestamp x", "a: &a [*a]", "a: " + "[" * 5000, "a: 1\n" * 10_000]
    + [
        "a: &a [x, x]\n"
        + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefghij"))
    ],
)
def test_odd_metadata_is_said_and_written_anew(metadata, caplog):
    merged = merge(f"---\n{metadata}\n---\nMy words.\n", card().text(picture=True))
    assert ModelCard(merged).data.license == "apache-2.0" and "My words." in merged and len(merged) < 10_000
    assert "The metadata at the head of README.md cannot be read" in caplog.text and "\n" not in caplog.messages[0]


def test_a_card_in_latin_1_or_too_long_is_said_and_the_model_published(tmp_path, caplog):
    Toy(64, 10).save_pretrained(tmp_path)
    (tmp_path / artifact.CARD).write_bytes("Für alle.\r\n".encode("latin-1"))
    assert "Für alle.\n" in publish(tmp_path, "alice/mine", dry_run=True).card
    assert "README.md to be UTF-8" in caplog.text and "Latin-1" in caplog.text
    (tmp_path / artifact.CARD).write_bytes(b"x" * (artifact.MAX_CARD + 1))
    assert len(publish(tmp_path, "alice/mine", dry_run=True).card) < 10_000
    assert "It is left out" in caplog.text


def test_results_that_are_none_are_not_published(tmp_path, caplog):
    Toy(64, 10).save_pretrained(tmp_path, results=[RESULT])
    (tmp_path / artifact.RESULTS).write_text('[{"seeds": 3}]')
    release = publish(tmp_path, "alice/mine", dry_run=True)
    assert artifact.RESULTS not in release.files and "published without an evaluation" in release.card
    assert "`seeds`" in caplog.text


def test_a_card_is_made_when_a_model_is_published(tmp_path):
    model = Toy(64, 10)
    folder = tmp_path / "runs/first/model"
    model.save_pretrained(folder, results=[RESULT])
    assert not (folder / artifact.CARD).exists() and not (folder / artifact.PICTURE).exists()
    release = publish(folder.parent, "alice/first", dry_run=True)
    assert "# alice/first\n" in release.card and "matrix.png" in release.files
    assert release.files[artifact.CARD] == len(release.card.encode())
    (folder / artifact.CARD).write_text("My words.\n")
    model.save_pretrained(folder)
    assert (folder / artifact.CARD).read_text() == "My words.\n"
    release = publish(folder, "alice/first", dry_run=True)
    assert "My words." in release.card and "These weights were published without an evaluation." in release.card
    assert "matrix.png" not in release.files


def test_a_policy_in_environments_of_ones_own_is_no_robot_of_meta_world(tmp_path):
    """No sentence of its card is about Meta-World: what installs, plays and measures it is another."""
    sizes = {"hidden_features": [8, 8], "observation_size": 3, "action_size": 1}
    policy = ActiveDendritePolicy(["moon", "earth"], **sizes)
    played = {"task_accuracies": [1.0, 0.5], "average_accuracy": 0.75, "num_tasks": 2, "tasks": ["moon", "earth"]}
    about = {"benchmark": "own-2-tasks", "context_at_test": "given", "matrix": None, "num_goals": 7, "env_steps": 9}
    policy.save_pretrained(tmp_path, results=[{**RESULT, **about, **played, "average_accuracy_per_seed": None}])
    text = publish(tmp_path, "alice/pendulum", dry_run=True).card
    data = ModelCard(text).data
    assert data.pipeline_tag == "reinforcement-learning" and "reinforcement-learning" in data.tags
    for words in ("meta-world", "robot", "imitation", "mujoco", "500 steps", "dendrite-zoo evaluate"):
        assert words not in text.lower()
    assert "acts in 2 tasks (moon, earth)" in text and "| earth | 0.500 |" in text
    assert "One episode from each of 7" in text and 'pip install "dendrite-zoo[rl]"' in text
    assert "observations of 3 numbers" in text and 'TaskSpec("moon", make_env)' in text
    assert 'action = model.act(observation, "moon")' in text
    policy.learned_tasks, policy.task_normalizers = ["earth"], {"earth": ((1.0,) * 3, (2.0,) * 3)}
    policy.save_pretrained(tmp_path)
    text = publish(tmp_path, "alice/pendulum", dry_run=True).card
    assert 'action = model.act(model.seen(observation, "earth"), "earth")' in text, "as it was learned"
    ActiveDendritePolicy(["reach-v3"], hidden_features=[8, 8]).save_pretrained(tmp_path / "robot")
    text = publish(tmp_path / "robot", "alice/robot", dry_run=True).card
    assert "skills of [Meta-World]" in text and "-learning" not in "".join(ModelCard(text).data.tags), (
        "nobody knows how"
    )


def test_goals_of_records_that_were_measured_on_other_numbers_of_them_are_told_apart():
    policy = ActiveDendritePolicy(["reach-v3", "push-v3"], hidden_features=[8, 8])
    played = {"task_accuracies": [1.0, 0.5], "average_accuracy": 0.75, "num_tasks": 2, "tasks": ["reach-v3", "push-v3"]}
    about = {**RESULT, "context_at_test": "given", "matrix": None, "average_accuracy_per_seed": None, **played}

    def text(*num_goals):
        policy.results = [{**about, "num_goals": goals, "method": f"method {n}"} for n, goals in enumerate(num_goals)]
        return Card(policy, full_config(policy), name="x", source="x").text(picture=False)

    alike, other = text(7, 7), text(7, 5)
    assert "| goals of a task |" not in alike and "| task | method 0 | method 1 |" in alike
    rows = {line.split(" | ")[1]: line.split(" | ")[3] for line in other.splitlines() if line.count(" | ") > 4}
    assert (rows["method 0"], rows["method 1"]) == ("7", "5")
    assert "goals a task and seed, or as many as stand above (new" in other and "| task | method 0 | steps" in other


def test_tasks_of_a_policy_of_which_nothing_was_measured_are_named():
    """Such as a skill for which there is room, and that was never learned."""
    policy = ActiveDendritePolicy(["reach-v3", "push-v3", "hammer-v3"], hidden_features=[8, 8])
    about = {"context_at_test": "given", "matrix": None, "num_goals": 7, "average_accuracy_per_seed": None}

    def text(tasks):
        played = {"task_accuracies": [1.0] * len(tasks), "num_tasks": len(tasks), "tasks": tasks}
        policy.results = [{**RESULT, **about, **played}]
        return Card(policy, full_config(policy), name="x", source="x").text(picture=False)

    said = text(["push-v3"])
    assert "goals reached**, in 1 of its 3 tasks.\n" in said
    words = "Nothing here says how well it does, or whether it was trained, in the other 2 of its tasks"
    assert f"\n- {words}: reach-v3, hammer-v3.\n- A success" in said
    assert "Nothing here says" not in (all_played := text(["hammer-v3", "push-v3", "reach-v3"]))
    policy.results = None
    blank = Card(policy, full_config(policy), name="x", source="x").text(picture=False)
    assert "\n- Nothing here says how well it does, or in which of its tasks it was trained.\n- A success" in blank
    assert "of its 3 tasks" not in all_played and "\n\n- A success" not in all_played


def test_a_kind_of_ones_own_is_that_of_its_other_tasks_too(monkeypatch):
    policy = ActiveDendritePolicy(["moon"], hidden_features=[8, 8], observation_size=3, action_size=1)
    monkeypatch.delitem(KINDS, "active-dendrite-policy of other tasks")  # as of a model type that somebody added
    assert Card(policy, full_config(policy), name="moon", source="moon").kind == KINDS["active-dendrite-policy"]


def test_a_card_without_sums_does_not_say_that_more_can_be_learned():
    model = RidgeClassifier(4, 2, random_features=8)
    model.learn([(torch.randn(20, 4), torch.arange(20) % 2)])
    for said in ("call `model.learn(loader)`", "It learns no further task"):
        text = Card(model, full_config(model), name="sums", source="alice/sums").text(picture=False)
        assert said in text and ("its sums come with it" in text) == ("loader" in said)
        model.drop_sums()


def test_skills_that_were_drawn_are_shown_until_there_are_other_weights(tmp_path):
    policy = ActiveDendritePolicy(["reach-v3"], hidden_features=[8, 8])
    policy.save_pretrained(tmp_path)
    assert artifact.SKILLS not in publish(tmp_path, "alice/robot", dry_run=True).card
    (tmp_path / artifact.SKILLS).write_bytes(b"GIF89a")
    release = publish(tmp_path, "alice/robot", dry_run=True)
    assert "](skills.gif)" in release.card and release.files[artifact.SKILLS] == 6
    policy.save_pretrained(tmp_path)
    assert not (tmp_path / artifact.SKILLS).exists()


def test_an_entry_of_the_zoo_has_card_and_picture_and_keeps_a_persons_text(tmp_path):
    (tmp_path / "registry.json").write_text("{}")
    Toy(64, 10).save_pretrained(tmp_path / "run")
    made = make_entry("toy-digits", tmp_path / "run", [RESULT], build="make toy", folder=tmp_path)
    path = tmp_path / "toy-digits" / artifact.CARD
    assert (made.headline, made.build) == ("0.877 mean accuracy, context inferred", "make toy")
    assert "# toy-digits\n" in path.read_text() and 'load("toy-digits")' in path.read_text()
    assert (tmp_path / "toy-digits" / artifact.PICTURE).is_file()
    path.write_text(path.read_text() + "\nMy words.\n")
    make_entry("toy-digits", tmp_path / "run", [{**RESULT, "average_accuracy": 0.5}], build="make toy", folder=tmp_path)
    assert "My words." in path.read_text() and "0.500 ± 0.012" in path.read_text()


def test_a_strangers_model_type_has_a_card_too(tmp_path):
    @register_model("card-of-a-stranger")
    class Stranger(HubModel, torch.nn.Linear):
        def __init__(self, in_features: int):
            super().__init__(in_features, 2)
            self.config = {"in_features": in_features}

    Stranger(3).save_pretrained(tmp_path, results=[RESULT])
    release = publish(tmp_path, "alice/mine", dry_run=True)
    assert "print(model)" in release.card and "| permuted-digits | ours |" in release.card
    assert ModelCard(release.card).data.pipeline_tag is None


@pytest.mark.parametrize(
    ("share", "as_share", "as_percentage"),
    [(1.0, "1.000", "100.0"), (0.9996, "0.9996", "99.96"), (0.9994, "0.999", "99.9"), (0.0, "0.000", "0.0")],
)
def test_what_is_nearly_all_is_not_written_as_all(share, as_share, as_percentage):
    assert (_number(share), _number(share, 100, 1)) == (as_share, as_percentage)
