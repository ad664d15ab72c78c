"""Loading from the Hub: every fault ends in a correct model or one clear error, and never in a bad cache."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

from dendrite_zoo.hub.loopback import Hub, Repo
from dendrite_zoo.hub.retry import Patience
from tests.hub.conftest import ALICE, BOB, World
from tests.hub.toy import Toy

LOAD = """
model = HubModel.from_pretrained($x, cache_dir=$cache)
result = model(torch.ones(1, 64)).tolist()
"""


def put(hub, folder, name="models/alice/toy", private=False, gated=False, **changed):
    """Commit a folder's files to the hub, without its client."""
    files = {path.name: path.read_bytes() for path in Path(folder).iterdir()} | changed
    files = {name: data for name, data in files.items() if data is not None}
    hub.objects |= {hashlib.sha256(data).hexdigest(): data for data in files.values()}
    repo = hub.repos.setdefault(name, Repo(private, gated))
    return repo.add(files, "put")


@pytest.fixture
def expected(model):
    return Toy.from_pretrained(model)(torch.ones(1, 64)).tolist()


def cached_blobs(cache):
    """Check the cache as it stands: no blob that is not what its name says."""
    blobs = [path for path in Path(cache).rglob("blobs/*") if path.is_file() and path.suffix != ".incomplete"]
    for path in blobs:
        data = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        assert path.name in (hashlib.sha256(data).hexdigest(), git), f"{path} is not what its name says"
    return blobs


def test_branch_tag_and_commit(hub, reader, model, expected, tmp_path):
    first = put(hub, model)
    hub.repos["models/alice/toy"].tags["v1"] = first
    Toy(64, 10, hidden=(32,)).save_pretrained(model)
    second = put(hub, model)
    for x in (f"alice/toy@{first}", "alice/toy@v1"):
        assert reader(LOAD, x=x, cache=tmp_path / "cache").result == expected
    newest = Toy.from_pretrained(model)(torch.ones(1, 64)).tolist()
    for x in ("alice/toy", "alice/toy@main", f"alice/toy@{second}"):
        assert reader(LOAD, x=x, cache=tmp_path / "cache").result == newest != expected
    assert reader(LOAD.replace("x,", "x, revision='v1',"), x="alice/toy", cache=tmp_path / "cache").result == expected
    answer = reader(LOAD.replace("x,", "x, revision='v1',"), x="alice/toy@main", cache=tmp_path / "cache")
    assert "expected one of the two" in answer.error


def test_a_pinned_commit_asks_nobody_once_cached(hub, reader, model, expected, tmp_path):
    sha = put(hub, model, **{"results.json": None})
    assert reader(LOAD, x=f"alice/toy@{sha}", cache=tmp_path).result == expected
    put(hub, model, **{"config.json": b"{}"})  # the head moves on to something broken
    hub.log.clear()
    assert reader(LOAD, x=f"alice/toy@{sha}", cache=tmp_path).result == expected
    assert hub.log == []


def test_offline_serves_the_cache_and_else_says_so(hub, world, reader, model, expected, tmp_path):
    sha = put(hub, model, **{"results.json": None})
    for x in ("alice/toy", f"alice/toy@{sha}"):
        assert reader(LOAD, x=x, cache=tmp_path / "cache").result == expected
    hub.log.clear()
    offline = world.worker(token=None, HF_HUB_OFFLINE="1")
    for x in ("alice/toy", f"alice/toy@{sha}"):
        assert offline(LOAD, x=x, cache=tmp_path / "cache").result == expected
    error = offline(LOAD, x="alice/toy", cache=tmp_path / "empty").error
    assert error.startswith("ConnectionError: alice/toy@main: config.json: not in the cache, and offline mode is on")
    force = LOAD.replace("cache_dir", "force_download=True, cache_dir")
    assert "Leave force_download= out" in offline(force, x="alice/toy", cache=tmp_path / "cache").error
    # A cached file that was altered meanwhile is not served, and not kept.
    weights = next(path for path in (tmp_path / "cache").rglob("*.safetensors"))
    blob = weights.resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    assert "offline mode is on" in offline(LOAD, x=f"alice/toy@{sha}", cache=tmp_path / "cache").error
    assert not blob.exists()
    assert hub.log == []


def test_a_hub_that_fails_leaves_what_is_cached(hub, reader, model, expected, tmp_path):
    put(hub, model)
    assert reader(LOAD, x="alice/toy", cache=tmp_path).result == expected
    hub.fail("resolve", 503, 100)
    assert reader(LOAD, x="alice/toy", cache=tmp_path).result == expected


def test_a_full_disk_while_downloading(hub, reader, model, expected, tmp_path):
    put(hub, model)
    full = (
        "import resource\nhard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))\n"
        "try:\n    HubModel.from_pretrained($x, cache_dir=$cache)\n"
        "finally:\n    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))"
    )
    error = reader(full, x="alice/toy", cache=tmp_path).error
    assert error.startswith("OSError: alice/toy@main: model.safetensors: ") and "File too large" in error
    assert not any(path.suffix == ".incomplete" for path in tmp_path.rglob("*"))
    cached_blobs(tmp_path)
    assert reader(LOAD, x="alice/toy", cache=tmp_path).result == expected


def test_all_files_come_from_one_commit(hub, reader, model, expected, tmp_path):
    """The branch moves between the config and the weights."""
    put(hub, model)
    moved = reader(
        "from huggingface_hub import hf_hub_download\n"
        "path = hf_hub_download('alice/toy', 'config.json', cache_dir=$cache)\n"
        "import dendrite_zoo.hub.download as d\n"
        "download = d.Download('alice/toy', 'main', $cache)\n"
        "result = download.commit",
        cache=tmp_path,
    ).result
    other = put(hub, model, **{"model.safetensors": b"other"})
    assert moved != other
    snippet = (
        "import dendrite_zoo.hub.download as d\n"
        "download = d.Download('alice/toy', $sha, $cache)\n"
        "result = str(download.path('model.safetensors'))"
    )
    path = Path(reader(snippet, sha=moved, cache=tmp_path).result)
    assert path.read_bytes() == (model / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("where", "how", "times"),
    [
        ("storage", "cut", 1),
        ("storage", "drop", 2),
        ("storage", 429, 2),
        ("storage", 500, 2),
        ("storage", 503, 3),
        ("storage", "hang", 1),
        ("storage", "corrupt", 1),
        ("resolve", 503, 2),
        ("resolve", 429, 1),
        ("resolve", "drop", 1),
        ("resolve", "corrupt", 2),
    ],
)
def test_a_passing_fault_is_overcome(hub, reader, model, expected, tmp_path, where, how, times):
    sha = put(hub, model)
    hub.fail(where, how, times)
    answer = reader(LOAD, x=f"alice/toy@{sha}", cache=tmp_path)
    assert answer.error is None and answer.result == expected, answer.trace
    assert hub.faults == []
    cached_blobs(tmp_path)


@pytest.mark.parametrize(
    ("where", "how", "message"),
    [
        ("storage", 500, "ConnectionError: alice/toy@.*: model.safetensors: the Hub answers with HTTP 500"),
        ("storage", 503, "ConnectionError: .* HTTP 503"),
        ("storage", 429, "ConnectionError: .* HTTP 429"),
        ("storage", "drop", "ConnectionError: .*model.safetensors: the Hub cannot be reached"),
        ("storage", "corrupt", "ValueError: .*model.safetensors arrived twice with another hash"),
        ("resolve", 503, "ConnectionError: .*config.json: the Hub answers with HTTP 503"),
        ("resolve", "drop", "ConnectionError: .*config.json: the Hub cannot be reached"),
        ("resolve", 400, "ValueError: .*config.json: the Hub refuses the request as it is, with HTTP 400"),
        ("resolve", 404, "FileNotFoundError: .*config.json: the Hub answers with HTTP 404 .*: nothing is there"),
        ("storage", 403, "PermissionError: .*model.safetensors: the Hub refuses it with HTTP 403"),
        (
            "storage",
            "slow",
            "ConnectionError: .*model.safetensors: the Hub has not done it within . s. .* HF_HUB_",
        ),
        ("storage", "slow body", "ConnectionError: .*model.safetensors: the Hub has not done it within . s"),
        ("resolve", "slow", "ConnectionError: .*config.json: the Hub has not done it within . s"),
    ],
)
def test_a_lasting_fault_is_one_clear_error(hub, reader, model, expected, tmp_path, where, how, message):
    sha = put(hub, model)
    hub.fail(where, how, 1000)
    answer = reader(LOAD, x=f"alice/toy@{sha}", cache=tmp_path)
    assert re.match(message, answer.error), answer.error
    assert "\n" not in answer.error
    cached_blobs(tmp_path)
    hub.faults.clear()
    assert reader(LOAD, x=f"alice/toy@{sha}", cache=tmp_path).result == expected


@pytest.mark.parametrize("where", ["resolve", "storage"])
@pytest.mark.parametrize("status", [429, 503])
def test_who_asks_to_wait_for_a_day_is_not_waited_for(hub, reader, model, expected, tmp_path, where, status):
    sha = put(hub, model)
    hub.fail(where, status, 100, retry_after=100_000)
    answer = reader(LOAD, x=f"alice/toy@{sha}", cache=tmp_path)
    assert re.search(
        rf"ConnectionError: .* the Hub answers with HTTP {status} and asks to wait for 100000 s", answer.error
    )
    assert len(hub.faults) == 99, "it is not asked again"
    hub.faults.clear()
    assert reader(LOAD, x=f"alice/toy@{sha}", cache=tmp_path).result == expected


def test_a_large_file_has_its_time():
    """1 MB at 10 kB/s is 100 s more; what has arrived counts as it arrives."""
    patience = Patience(1_000_000)
    before = patience.seconds
    patience.num_bytes += 1_000_000
    assert patience.seconds == before + 100 and 30 * HF_HUB_DOWNLOAD_TIMEOUT + 100 == before


def test_small_files_are_not_downloaded_where_they_are_huge(hub, reader, model, tmp_path):
    put(hub, model, **{"config.json": b"[" + b" " * (1 << 20) + b"]"})
    error = reader(LOAD, x="alice/toy", cache=tmp_path / "cache").error
    assert error.startswith(
        "ValueError: alice/toy@main: config.json: Expected config.json to have at most 1,048,576 bytes"
    )
    assert not any(path.is_file() and path.stat().st_size > 1000 for path in (tmp_path / "cache").rglob("*"))


def test_local_files_only(hub, reader, model, expected, tmp_path):
    sha = put(hub, model, **{"results.json": None})
    local = LOAD.replace("cache_dir", "local_files_only=True, cache_dir")
    error = reader(local, x="alice/toy", cache=tmp_path).error
    assert error.startswith("ConnectionError: alice/toy@main: config.json: not in the cache") and "out local_f" in error
    assert reader(LOAD, x="alice/toy", cache=tmp_path).result == expected
    hub.log.clear()
    for x in ("alice/toy", f"alice/toy@{sha}"):
        assert reader(local, x=x, cache=tmp_path).result == expected
    assert hub.log == []


def test_a_download_by_force(hub, reader, model, expected, tmp_path):
    put(hub, model)
    assert reader(LOAD, x="alice/toy", cache=tmp_path).result == expected
    hub.log.clear()
    assert reader(LOAD, x="alice/toy", cache=tmp_path).result == expected
    assert not any("storage" in line for line in hub.log)
    force = LOAD.replace("cache_dir", "force_download=True, cache_dir")
    assert reader(force, x="alice/toy", cache=tmp_path).result == expected
    assert sum(line.startswith("GET /storage") for line in hub.log) == 1
    cached_blobs(tmp_path)


def test_a_corrupted_cache_is_mended(hub, reader, model, expected, tmp_path):
    put(hub, model)
    for name in ("model.safetensors", "config.json"):
        assert reader(LOAD, x="alice/toy", cache=tmp_path).result == expected
        blob = next(tmp_path.rglob(f"snapshots/*/{name}")).resolve()
        data = blob.read_bytes()
        blob.write_bytes(data.replace(b'"in_features": 64', b'"in_features": 65')[:-1] + b"\n")
        assert reader(LOAD, x="alice/toy", cache=tmp_path).result == expected
        cached_blobs(tmp_path)


def test_what_is_not_there_is_named(hub, reader, model, tmp_path):
    sha = put(hub, model)
    put(hub, model, "models/alice/pickled", **{"model.safetensors": None, "pytorch_model.bin": b"never opened"})
    put(hub, model, "models/alice/empty", **{"config.json": None})
    put(hub, model, "models/alice/cut", **{"model.safetensors": (model / "model.safetensors").read_bytes()[:-9]})
    config = json.loads((model / "config.json").read_text())
    for name, change in {
        "theirs": {"library_name": "transformers"},
        "newer": {"format_version": 99},
        "headless": {"num_classes": 11},
        "path": {"model_type": "os.system"},
        "huge": {"in_features": 2**31 - 1, "hidden": [2**31 - 1]},
    }.items():
        put(hub, model, f"models/alice/{name}", **{"config.json": json.dumps(config | change).encode()})
    for x, message in {
        "alice/nothing": "FileNotFoundError: alice/nothing@main: config.json: no such repo",
        "alice/toy@v9": "FileNotFoundError: alice/toy@v9: config.json: no such branch, tag or commit",
        f"alice/toy@{'0' * 40}": "no such branch, tag or commit",
        "alice/pickled": "model.safetensors: no such file in that repo",
        "alice/empty": "config.json: no such file in that repo",
        "alice/cut": "is truncated or altered",
        "alice/theirs": "not an artifact of this library",
        "alice/newer": "Upgrade",
        "alice/headless": "num_classes=",
        "alice/path": "never a path to import",
        "alice/huge": "do not belong together|no machine holds",
    }.items():
        error = reader(LOAD, x=x, cache=tmp_path).error
        assert re.search(message, error), (x, error)
    assert not any(".bin" in line for line in hub.log)
    assert sha in hub.repos["models/alice/toy"].commits


def test_private_and_gated(hub, reader, alice, model, expected, tmp_path):
    put(hub, model, private=True)
    put(hub, model, "models/lab/gated", gated=True)
    assert alice(LOAD, x="alice/toy", cache=tmp_path / "a").result == expected
    assert alice(LOAD, x="lab/gated", cache=tmp_path / "a").result == expected
    with_token = LOAD.replace("cache_dir", "token=$token, cache_dir")
    for token in (None, BOB):
        assert "or it is private" in reader(with_token, x="alice/toy", cache=tmp_path / "b", token=token).error
        error = reader(with_token, x="lab/gated", cache=tmp_path / "b", token=token).error
        assert error.startswith("PermissionError: lab/gated@main: config.json: access is gated")
    assert reader(with_token, x="alice/toy", cache=tmp_path / "c", token=ALICE).result == expected
    answer = reader(with_token, x="alice/toy", cache=tmp_path / "d", token="hf_wrong_secret")
    assert answer.error.startswith("PermissionError: alice/toy@main: config.json: the Hub refuses the token")
    assert "hf_wrong_secret" not in answer.said + answer.trace


def test_connection_refused_and_silence(model, tmp_path):
    with Hub() as hub:
        pass  # its port is free again
    world = World(hub)
    error = world.worker(token=None)(LOAD, x="alice/toy", cache=tmp_path).error
    world.close()
    assert error.startswith("ConnectionError: alice/toy@main: config.json: the Hub cannot be reached")
    assert "HF_ENDPOINT" in error


def test_a_zoo_entry_is_held_to_its_pins(hub, reader, model, expected, tmp_path):
    sha = put(hub, model)
    pin = {"sha256": hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest(), "size": 1}
    entry = {"repo": "alice/toy", "revision": sha, "files": {"model.safetensors": pin}}
    shelf = tmp_path / "cards"
    shelf.mkdir()
    load = (
        "from pathlib import Path\nfrom dendrite_zoo.hub import registry\n"
        "registry.cards_folder = lambda: Path($shelf)\n" + LOAD
    )
    (shelf / "registry.json").write_text(json.dumps({"toy-zoo": entry}))
    assert reader(load, x="toy-zoo", shelf=shelf, cache=tmp_path / "a").result == expected
    entry["files"]["model.safetensors"]["sha256"] = "0" * 64
    (shelf / "registry.json").write_text(json.dumps({"toy-zoo": entry}))
    error = reader(load, x="toy-zoo", shelf=shelf, cache=tmp_path / "a").error
    assert "toy-zoo@" in error and "arrived twice with another hash than promised" in error
    assert not list((tmp_path / "a").rglob("*.safetensors"))


def test_weights_never_see_the_token(hub, alice, model, expected, tmp_path):
    """The storage host answers 400 to a token, so a load that works sent none."""
    put(hub, model, private=True)
    assert alice(LOAD, x="alice/toy", cache=tmp_path).result == expected


def test_a_data_set_mirror_is_served(hub, reader, tmp_path):
    mirror = tmp_path / "datasets/ylecun/mnist/mnist"
    mirror.mkdir(parents=True)
    (mirror / "train-00000-of-00001.parquet").write_bytes(b"digits" * 1000)
    mirrored = Hub(datasets=tmp_path / "datasets")
    mirrored.close()
    hub.repos |= mirrored.repos
    hub.objects |= mirrored.objects
    snippet = (
        "from huggingface_hub import hf_hub_download\n"
        "file = 'mnist/train-00000-of-00001.parquet'\n"
        "path = hf_hub_download('ylecun/mnist', file, repo_type='dataset', cache_dir=$cache)\n"
        "result = open(path, 'rb').read().decode()"
    )
    answer = reader(snippet, cache=tmp_path / "cache")
    assert answer.result == "digits" * 1000, answer.error
