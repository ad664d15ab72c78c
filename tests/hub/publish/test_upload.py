"""Publishing against a real server: whole or not at all, never over somebody else, and again after any failure."""

import json
import os
import re
import signal
import time
from importlib.util import find_spec

import pytest
import torch
from huggingface_hub import ModelCard

from dendrite_zoo.hub import artifact, build, full_config, registry
from dendrite_zoo.hub.loopback import IDENTITY
from dendrite_zoo.hub.publish import publish
from dendrite_zoo.hub.publish.merge import own_text
from tests.hub.conftest import ALICE, RESULT, filled
from tests.hub.toy import Toy

PUBLISH = "r = publishing.publish($source, $repo); result = [r.commit, r.tag, r.changed, r.url, sorted(r.files)]"
LOAD = """
model = HubModel.from_pretrained($x, cache_dir=$cache)
result = model(torch.ones(1, 64)).tolist()
"""


def outputs(folder):
    return Toy.from_pretrained(folder)(torch.ones(1, 64)).tolist()


def head(hub, repo="alice/toy"):
    """Give the files at the head of a repo."""
    held = hub.repos[f"models/{repo}"]
    return held.commits[held.branches["main"]]


def test_publish_and_load_in_another_process(hub, alice, reader, model, tmp_path):
    commit, tag, changed, url, files = alice(PUBLISH, source=model, repo="alice/toy").result
    assert (tag, changed, url) == ("v1", True, f"{hub.url}/alice/toy/tree/{commit}")
    page = ["report.html"] * (find_spec("vl_convert") is not None)
    assert files == ["README.md", "config.json", "matrix.png", "model.safetensors", *page, "results.json"]
    assert [name in head(hub)["README.md"].decode() for name in ("matrix.png", "report.html")] == [True, bool(page)]
    for x in ("alice/toy", "alice/toy@v1", f"alice/toy@{commit}"):
        assert reader(LOAD, x=x, cache=tmp_path / "cache").result == outputs(model)
    assert head(hub)["model.safetensors"] == (model / "model.safetensors").read_bytes()
    card = ModelCard(head(hub)["README.md"].decode())
    assert card.data.library_name == "dendrite-zoo"
    assert card.data.eval_results[0].metric_value == RESULT["average_accuracy"]
    assert head(hub)["matrix.png"].startswith(b"\x89PNG")


def test_the_cards_snippet_runs(hub, alice, reader, model):
    alice(PUBLISH, source=model, repo="alice/toy")
    (snippet,) = re.findall(r"```python\n(.*?)```", head(hub)["README.md"].decode(), re.DOTALL)
    assert 'load("alice/toy")' in snippet
    answer = reader(snippet + "\nresult = list(logits.shape)")
    assert answer.result == [8, 10], answer.error


def test_the_same_again_commits_nothing(hub, alice, model):
    first = alice(PUBLISH, source=model, repo="alice/toy").result
    again = alice(PUBLISH, source=model, repo="alice/toy").result
    assert again[:3] == [first[0], "v1", False]
    assert len(hub.repos["models/alice/toy"].commits) == 2


def test_a_new_release_gets_the_next_tag_and_drops_what_is_stale(hub, alice, model):
    alice(PUBLISH, source=model, repo="alice/toy")
    Toy(64, 10, hidden=(32,)).save_pretrained(model)
    assert alice(PUBLISH, source=model, repo="alice/toy").result[1] == "v2"
    assert sorted(head(hub)) == [".gitattributes", "README.md", "config.json", "model.safetensors"]
    named = PUBLISH.replace("$repo", "$repo, tag=$tag")
    assert alice(named, source=model, repo="alice/toy", tag="release").result[1] == "release"
    assert "tag 'v1' names commit" in alice(named, source=model, repo="alice/toy", tag="v1").error


def test_a_message_of_ones_own(hub, alice, model):
    push = "result = Toy.from_pretrained($source).push_to_hub($repo, commit_message='better').commit"
    commit = alice(push, source=model, repo="alice/toy").result
    assert hub.repos["models/alice/toy"].titles[commit] == "better"


def test_a_branch(hub, alice, reader, model, tmp_path):
    alice(PUBLISH.replace("$repo", "$repo, revision='dev'"), source=model, repo="alice/toy")
    assert reader(LOAD, x="alice/toy@dev", cache=tmp_path / "cache").result == outputs(model)
    assert "no such file" in reader(LOAD, x="alice/toy", cache=tmp_path / "cache").error


def test_a_fine_tuned_model_names_its_base(hub, alice, reader, model, tmp_path):
    alice(PUBLISH, source=model, repo="alice/toy")
    tune = """
model = Toy.from_pretrained("alice/toy", cache_dir=$cache)
assert model.prototypes.abs().sum() > 0
with torch.no_grad():
    model.head.bias += 1
result = [model(torch.ones(1, 64)).tolist(), model.push_to_hub($to).commit]
"""
    tuned, _ = alice(tune, cache=tmp_path / "a", to="alice/tuned").result
    assert reader(LOAD, x="alice/tuned", cache=tmp_path / "b").result == tuned != outputs(model)
    card = ModelCard(head(hub, "alice/tuned")["README.md"].decode())
    assert card.data.base_model == "alice/toy"
    assert card.data.eval_results is None and "results.json" not in head(hub, "alice/tuned")
    # Saved to a folder first and published by the command it still does, and on top of its base it has none.
    save = tune.replace("model.push_to_hub($to).commit", "model.save_pretrained($to)")
    assert alice(save, cache=tmp_path / "a", to=tmp_path / "tuned").error is None
    alice(PUBLISH, source=tmp_path / "tuned", repo="alice/again")
    assert ModelCard(head(hub, "alice/again")["README.md"].decode()).data.base_model == "alice/toy"
    alice(tune, cache=tmp_path / "a", to="alice/toy")
    assert ModelCard(head(hub)["README.md"].decode()).data.base_model is None


REPUBLISH = """
model = HubModel.from_pretrained($x, cache_dir=$cache)
if $train:
    with torch.no_grad():
        model.head.bias += 1
result = model.push_to_hub($to).commit
"""


def test_the_base_of_a_model_that_is_published_again(hub, alice, model, tmp_path):
    """Who fine-tunes names what was loaded; who publishes the same weights, or a next version, names what those did."""

    def base_of(x, to, train):
        answer = alice(REPUBLISH, x=x, to=to, train=train, cache=tmp_path / "cache")
        assert answer.error is None, answer.trace
        return ModelCard(head(hub, to)["README.md"].decode()).data.base_model

    alice(PUBLISH, source=model, repo="alice/toy")
    assert base_of("alice/toy", "lab/copy", train=False) is None
    assert base_of("alice/toy", "alice/tuned", train=True) == "alice/toy"
    assert base_of("alice/tuned", "lab/tuned", train=False) == "alice/toy"
    assert base_of("alice/tuned", "alice/tuned", train=True) == "alice/toy"
    assert base_of("alice/tuned", "alice/twice", train=True) == "alice/tuned"
    assert base_of("alice/twice", "alice/toy", train=False) == "alice/tuned"
    assert base_of("alice/tuned", "alice/toy", train=False) is None, "a repo is not its own base"


def test_a_loaded_model_keeps_its_results(hub, alice, model, tmp_path):
    alice(PUBLISH, source=model, repo="alice/toy")
    push = "result = HubModel.from_pretrained('alice/toy', cache_dir=$cache).push_to_hub('lab/copy').changed"
    assert alice(push, cache=tmp_path / "cache").result is True
    card = ModelCard(head(hub, "lab/copy")["README.md"].decode())
    assert card.data.eval_results[0].metric_value == RESULT["average_accuracy"]
    assert json.loads(head(hub, "lab/copy")["results.json"]) == [RESULT]


def test_runs_and_checkpoints(hub, alice, reader, model, tmp_path):
    toy = Toy.from_pretrained(model)
    run = tmp_path / "runs/first"
    toy.save_pretrained(run / "model")
    alice(PUBLISH, source=run, repo="alice/run")
    state = {f"model.{name}": tensor for name, tensor in toy.state_dict().items()}
    checkpoint = {"state_dict": state | {"other": torch.ones(1)}, "hyper_parameters": {"model": full_config(toy)}}
    torch.save(checkpoint, run / "last.ckpt")
    alice(PUBLISH, source=run / "last.ckpt", repo="alice/checkpoint")
    for x in ("alice/run", "alice/checkpoint"):
        assert reader(LOAD, x=x, cache=tmp_path / "cache").result == outputs(model)
    torch.save({"state_dict": {}, "hyper_parameters": {}}, run / "other.ckpt")
    assert "no checkpoint of a model of this library" in alice(PUBLISH, source=run / "other.ckpt", repo="alice/x").error
    assert "holds no model" in alice(PUBLISH, source=tmp_path, repo="alice/x").error
    (run / "model/model.safetensors").write_bytes(b"cut")
    assert "truncated or altered" in alice(PUBLISH, source=run, repo="alice/x").error
    assert "as 'org/name', such as" in alice(PUBLISH, source=model, repo="toy").error
    assert "models/alice/x" not in hub.repos


def test_a_checkpoint_that_is_none_says_what_it_lacks(tmp_path, model):
    toy = Toy.from_pretrained(model)
    state = {f"model.{name}": tensor for name, tensor in toy.state_dict().items()}
    good = {"state_dict": state, "hyper_parameters": {"model": full_config(toy)}}
    torch.save(good, tmp_path / "last.ckpt")
    whole = (tmp_path / "last.ckpt").read_bytes()
    assert publish(tmp_path / "last.ckpt", "alice/x", dry_run=True).files["model.safetensors"]
    for changed, named in [
        ({"state_dict": None}, "it has no state_dict"),
        ({"hyper_parameters": None}, r"it has no config of a model in hyper_parameters\['model'\]"),
        ({"hyper_parameters": {"model": {}}}, r"hyper_parameters\['model'\] has library_name None"),
        (
            {"hyper_parameters": {"model": full_config(Toy(64, 11, hidden=(32,)))}},
            r"head.weight is \[10, 32\].* leads to \[11",
        ),
        ({"state_dict": {**state, "model.head.bias": torch.zeros(3)}}, r"head.bias is \[3\] torch.float32"),
        ({"state_dict": {**state, "model.head.bias": "none"}}, "head.bias is no tensor"),
        ({"state_dict": {"model.head.bias": torch.zeros(10)}}, "the weights lack .'body.0.bias'"),
    ]:
        torch.save({**good, **changed}, tmp_path / "last.ckpt")
        with pytest.raises(ValueError, match=named) as refused:
            publish(tmp_path / "last.ckpt", "alice/x", dry_run=True)
        assert str(tmp_path / "last.ckpt") in str(refused.value) and "\n" not in str(refused.value)
    for data in (whole[:-100], b"", b"no checkpoint"):
        (tmp_path / "last.ckpt").write_bytes(data)
        with pytest.raises(ValueError, match="Expected .*last.ckpt to be a Lightning checkpoint, but got") as refused:
            publish(tmp_path / "last.ckpt", "alice/x", dry_run=True)
        assert "\n" not in str(refused.value)
    for name in ("a/" + "b" * 95, "a b/c", "a/b@main"):
        with pytest.raises(ValueError, match="expected a repo as 'org/name'.* of at most 96 characters"):
            publish(model, name, dry_run=True)


def test_private(hub, alice, reader, model, tmp_path):
    private = PUBLISH.replace("$repo", "$repo, private=True")
    alice(private, source=model, repo="alice/toy")
    assert hub.repos["models/alice/toy"].private
    assert "or it is private" in reader(LOAD, x="alice/toy", cache=tmp_path / "a").error
    assert alice(LOAD, x="alice/toy", cache=tmp_path / "a").result == outputs(model)
    alice(PUBLISH, source=model, repo="alice/open")
    Toy(64, 10).save_pretrained(model)
    commits = len(hub.repos["models/alice/open"].commits)
    assert "exists and is public" in alice(private, source=model, repo="alice/open").error
    assert len(hub.repos["models/alice/open"].commits) == commits


def test_a_dry_run_asks_nobody(hub, alice, model):
    dry = PUBLISH.replace("$repo", "$repo, dry_run=True").replace("r.changed", "r.card")
    commit, tag, card, _, files = alice(dry, source=model, repo="alice/toy").result
    assert (commit, tag) == (None, None)
    assert "model.safetensors" in files and 'load("alice/toy")' in card
    assert hub.log == []


def test_a_persons_text_survives_a_new_release(hub, alice, model):
    alice(PUBLISH, source=model, repo="alice/toy")
    edit = """
from huggingface_hub import HfApi, hf_hub_download
text = open(hf_hub_download("alice/toy", "README.md", cache_dir=$cache)).read() + $words
HfApi().upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id="alice/toy")
"""
    alice(edit, words="\nWritten on the Hub.\n", cache=model.parent / "cache")
    Toy(64, 10).save_pretrained(model)
    alice(PUBLISH, source=model, repo="alice/toy")
    assert own_text(head(hub)["README.md"].decode()) == "Written on the Hub."
    # Text in the folder goes along where the Hub's card has none; else the Hub's stays, and that is said.
    (model / "README.md").write_text("Written here.\n")
    alice(PUBLISH, source=model, repo="alice/other")
    assert own_text(head(hub, "alice/other")["README.md"].decode()) == "Written here."
    answer = alice(PUBLISH, source=model, repo="alice/toy")
    assert own_text(head(hub)["README.md"].decode()) == "Written on the Hub."
    assert "the one on the Hub stays" in answer.said


# Faults.


@pytest.mark.parametrize(
    ("where", "how", "times"),
    [
        ("commit", 503, 4),
        ("commit", 500, 1),
        ("commit", 429, 2),
        ("commit", 412, 1),
        ("commit", "drop", 2),
        ("commit", "lose", 1),
        ("commit", "hang", 1),
        ("create", 503, 4),
        ("info", 500, 2),
        ("preupload", 503, 1),
        ("batch", 429, 1),
        ("upload", 500, 2),
        ("upload", "drop", 1),
        ("complete", 503, 1),
        ("ref", 503, 3),
        ("ref", "lose", 1),
        ("refs", "drop", 1),
        ("validate_yaml", 503, 1),
    ],
)
def test_a_passing_fault_is_overcome(hub, alice, plain, where, how, times):
    hub.fail(where, how, times)
    answer = alice(PUBLISH, source=plain, repo="alice/toy")
    assert answer.error is None, answer.trace
    assert hub.faults == []
    repo = hub.repos["models/alice/toy"]
    assert len(repo.commits) == 2 and repo.tags == {"v1": repo.branches["main"]} == {"v1": answer.result[0]}
    assert head(hub)["model.safetensors"] == (plain / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("where", "how", "message"),
    [
        ("commit", 503, "ConnectionError: alice/toy: the Hub answers with HTTP 503"),
        ("commit", 500, "ConnectionError: alice/toy: the Hub answers with HTTP 500"),
        ("commit", "drop", "ConnectionError: alice/toy: the Hub cannot be reached"),
        ("upload", 500, "ConnectionError: alice/toy: the Hub answers with HTTP 500"),
        ("create", "hang", "ConnectionError: alice/toy: the Hub (cannot be reached|has not done it within)"),
        ("create", 403, "PermissionError: alice/toy: the Hub refuses it with HTTP 403"),
        ("commit", "slow", "ConnectionError: alice/toy: the Hub has not done it within . s"),
        ("ref", 409, "ConnectionError: alice/toy: the model is committed as .*, but it has no tag: .* HTTP 409"),
    ],
)
def test_a_lasting_fault_is_one_clear_error(hub, alice, plain, where, how, message):
    hub.fail(where, how, 100)
    answer = alice(PUBLISH, source=plain, repo="alice/toy")
    assert re.match(message, answer.error) and "\n" not in answer.error
    hub.faults.clear()
    assert alice(PUBLISH, source=plain, repo="alice/toy").result[1] == "v1"


@pytest.mark.parametrize("status", [400, 401, 403, 404])
@pytest.mark.parametrize("where", ["commit", "preupload", "batch", "ref"])
def test_what_another_attempt_would_meet_again_is_not_tried_again(hub, alice, plain, where, status):
    hub.fail(where, status, 100)
    error = alice(PUBLISH, source=plain, repo="alice/toy").error
    assert len(hub.faults) == 99 and f"HTTP {status} (failing on demand)" in error
    assert "Try again" not in error and "again and again" not in error


def test_a_bad_token_and_a_foreign_namespace(hub, alice, reader, plain):
    assert "PermissionError: bob/toy: the Hub refuses it with HTTP 403" in (
        alice(PUBLISH, source=plain, repo="bob/toy").error
    )
    bad = PUBLISH.replace("$repo", "$repo, token=$token")
    error = reader(bad, source=plain, repo="alice/toy", token="hf_wrong_secret").error
    assert error.startswith("PermissionError: alice/toy: the Hub refuses the token")
    assert "PermissionError" in reader(PUBLISH, source=plain, repo="alice/toy").error
    assert hub.repos == {}


MEANWHILE = """
from huggingface_hub import HfApi
commit = HfApi.create_commit
def interrupted(self, *args, **kwargs):
    HfApi.create_commit = commit
    HfApi().upload_file(path_or_fileobj=$content, path_in_repo=$path, repo_id="alice/toy")
    return commit(self, *args, **kwargs)
HfApi.create_commit = interrupted
try:
    r = publishing.publish($source, "alice/toy"); result = r.commit
finally:
    HfApi.create_commit = commit
"""


def test_an_edit_of_the_card_meanwhile_is_kept(hub, alice, plain):
    alice(PUBLISH, source=plain, repo="alice/toy")
    Toy(64, 10).save_pretrained(plain)
    answer = alice(MEANWHILE, source=plain, content=b"Just now.", path="README.md")
    assert answer.error is None, answer.trace
    assert own_text(head(hub)["README.md"].decode()) == "Just now."
    assert head(hub)["model.safetensors"] == (plain / "model.safetensors").read_bytes()


def test_a_model_published_meanwhile_is_not_overwritten(hub, alice, plain):
    alice(PUBLISH, source=plain, repo="alice/toy")
    Toy(64, 10).save_pretrained(plain)
    answer = alice(MEANWHILE, source=plain, content=b"theirs", path="model.safetensors")
    assert "FileExistsError: alice/toy: somebody else published a model there meanwhile" in answer.error
    assert head(hub)["model.safetensors"] == b"theirs"
    assert alice(PUBLISH, source=plain, repo="alice/toy").result[1] == "v2"


def test_two_publishers_at_once(hub, alice, reader, plain, tmp_path):
    as_alice = PUBLISH.replace("$repo", "$repo, token=$token")
    Toy(64, 10).save_pretrained(tmp_path / "second")
    for _ in range(3):
        hub.repos.clear()
        alice.send(filled(PUBLISH, source=plain, repo="alice/toy"))
        reader.send(filled(as_alice, source=tmp_path / "second", repo="alice/toy", token=ALICE))
        answers = alice.answer(), reader.answer()
        done = [answer for answer in answers if answer.error is None]
        assert done and all("somebody else published" in a.error for a in answers if a.error)
        files = {name: head(hub)[name] for name in ("config.json", "model.safetensors")}
        wholes = [{n: (folder / n).read_bytes() for n in files} for folder in (plain, tmp_path / "second")]
        assert files in wholes
        repo = hub.repos["models/alice/toy"]
        assert len(repo.commits) == 1 + len(done) and sorted(repo.tags.values()) == sorted(a.result[0] for a in done)


@pytest.mark.parametrize(
    ("where", "request_"), [("upload", "PUT /objects"), ("commit", "/commit/main"), ("ref", "/tag/")]
)
def test_killed_and_run_again(hub, alice, reader, plain, tmp_path, where, request_):
    hub.fail(where, "hang")
    victim = f"import os\nresult = os.fork()\nif result == 0:\n    {PUBLISH}\n    os._exit(0)"
    pid = alice(victim, source=plain, repo="alice/toy").result
    while not any(request_ in line for line in hub.log):
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert alice("result = os.waitpid($pid, 0)[1]".replace("os", "__import__('os')"), pid=pid).result == signal.SIGKILL
    answer = alice(PUBLISH, source=plain, repo="alice/toy")
    assert answer.error is None, answer.trace
    assert answer.result[1] == "v1" and len(hub.repos["models/alice/toy"].commits) == 2
    assert reader(LOAD, x="alice/toy", cache=tmp_path / "cache").result == outputs(plain)


def test_no_token_in_what_was_sent(hub, alice, model):
    alice(PUBLISH, source=model, repo="alice/toy")
    sent = b"".join(head(hub).values())
    assert ALICE.encode() not in sent and b"_secret" not in sent


# The zoo, and what others published.

ALL = """
from pathlib import Path
from tools.publish_all import publish_all
pairs = publish_all($namespace, folder=Path($shelf))
result = [[e.name, e.repo, e.revision, r and r.changed] for e, r in pairs]
"""


@pytest.fixture
def shelf(tmp_path):
    shelf = tmp_path / "cards"
    shelf.mkdir()
    (shelf / "registry.json").write_text("{}")
    for name in ("toy-a", "toy-b"):
        torch.manual_seed(ord(name[-1]))
        Toy(64, 10).save_pretrained(shelf / name, results=[RESULT])
        registry.record(registry.Entry(name, files=registry.pins(shelf / name)), shelf)
    registry.record(registry.Entry("toy-far", build="dendrite-zoo fit --config far.yaml"), shelf)
    return shelf


def test_the_whole_zoo_can_be_interrupted_and_run_again(hub, alice, reader, shelf, tmp_path):
    first = ALL.replace("result = ", "import itertools\npairs = itertools.islice(pairs, 1)\nresult = ")
    ((_, repo, revision, changed),) = alice(first, namespace="lab", shelf=shelf).result
    assert (repo, changed) == ("lab/toy-a", True)
    assert registry.entries(shelf)["toy-a"].revision == revision and registry.entries(shelf)["toy-b"].revision is None
    rest = alice(ALL, namespace="lab", shelf=shelf).result
    assert [row[3] for row in rest] == [False, True, None]
    text = (shelf / "registry.json").read_text()
    assert [row[3] for row in alice(ALL, namespace="lab", shelf=shelf).result] == [False, False, None]
    assert (shelf / "registry.json").read_text() == text
    assert len(hub.repos) == 2 and all(len(repo.commits) == 2 for repo in hub.repos.values())
    # What the registry says now leads to the model, from anywhere.
    for name in ("toy-a", "toy-b"):
        (shelf / name / artifact.WEIGHTS).rename(tmp_path / name)
    shelve = "from pathlib import Path\nfrom dendrite_zoo.hub import registry\n"
    shelve += "registry.cards_folder = lambda: Path($shelf)\n"
    answer = reader(shelve + LOAD, x="toy-b", shelf=shelf, cache=tmp_path / "cache")
    (tmp_path / "toy-b").rename(shelf / "toy-b" / artifact.WEIGHTS)
    assert answer.result == outputs(shelf / "toy-b"), answer.error


TRUSTED = """
import os
from pathlib import Path
from tools.publish_all import publish_all
os.environ["HF_OIDC_ID_TOKEN"] = $identity
try:
    result = [r and r.changed for _, r in publish_all("lab", trusted=True, folder=Path($shelf))]
finally:
    del os.environ["HF_OIDC_ID_TOKEN"], os.environ["HF_OIDC_RESOURCE"]
"""


def test_ci_publishes_the_zoo_as_a_trusted_publisher(hub, alice, shelf):
    """Without a token: each repo has one of its own, for which a person made the repo before."""
    refused = alice(TRUSTED, identity=IDENTITY, shelf=shelf).error
    assert "Expected lab/toy-a to trust this job" in refused and "invalid_grant" in refused and not hub.repos
    for name in ("toy-a", "toy-b"):
        Toy(64, 10).save_pretrained(shelf / name)  # without results no picture is drawn
        alice(f"from huggingface_hub import HfApi; HfApi().create_repo('lab/{name}')")
    answer = alice(TRUSTED, identity=IDENTITY, shelf=shelf)
    assert answer.result == [True, True, None], answer.error
    pinned = registry.entries(shelf)
    assert all(pinned[name].revision == hub.repos[f"models/lab/{name}"].tags["v1"] for name in ("toy-a", "toy-b"))


def test_a_changed_entry_is_released_anew(hub, alice, shelf):
    alice(ALL, namespace="lab", shelf=shelf)
    before = registry.entries(shelf)["toy-a"]
    Toy(64, 10).save_pretrained(shelf / "toy-a", results=[RESULT])
    alice(ALL, namespace="lab", shelf=shelf)
    after = registry.entries(shelf)["toy-a"]
    assert after.revision != before.revision and after.files == registry.pins(shelf / "toy-a")
    assert hub.repos["models/lab/toy-a"].tags == {"v1": before.revision, "v2": after.revision}


def test_models_on_the_hub_are_listed(hub, alice, reader, model):
    alice(PUBLISH, source=model, repo="alice/toy")
    alice(PUBLISH.replace("$repo", "$repo, private=True"), source=model, repo="alice/hidden")
    alice("from huggingface_hub import HfApi; HfApi().create_repo('alice/unrelated')")
    rows = "result = [[r['repo'], r['task'], r['benchmarks'], r['private']] for r in publishing.published()]"
    shown = ["alice/toy", "image-classification", ["permuted-digits"], False]
    assert reader(rows).result == [shown]
    assert len(alice(rows).result) == 2


def test_the_config_on_the_hub_builds_a_model(hub, alice, model):
    alice(PUBLISH, source=model, repo="alice/toy")
    assert type(build(json.loads(head(hub)["config.json"]))) is Toy
