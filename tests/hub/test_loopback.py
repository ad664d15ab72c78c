"""The loopback hub itself: what it refuses, and what it serves."""

import hashlib
import json
import urllib.error
import urllib.request

import pytest

from dendrite_zoo.hub.loopback import IDENTITY, Hub
from tests.hub.conftest import ALICE, BOB


def ask(hub, method, path, body=None, token=ALICE):
    """Ask the hub without its client; gives status and answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(path if "://" in path else hub.url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture
def toy(hub):
    assert ask(hub, "POST", "/api/repos/create", {"name": "toy", "organization": "alice"})[0] == 200
    return hub


def commit(hub, *lines, parent=None, token=ALICE):
    header = {"key": "header", "value": {"summary": "test"} | ({"parentCommit": parent} if parent else {})}
    body = b"\n".join(json.dumps(line).encode() for line in (header, *lines))
    return ask(hub, "POST", "/api/models/alice/toy/commit/main", body, token)


def test_an_upload_must_be_what_it_was_announced_as(toy):
    data = b"weights"
    oid = hashlib.sha256(data).hexdigest()
    line = {"key": "lfsFile", "value": {"path": "model.safetensors", "oid": oid}}
    assert commit(toy, line)[0] == 400
    assert ask(toy, "PUT", f"{toy.storage_url}/objects/{oid}", b"other", None)[0] == 400
    assert commit(toy, line)[0] == 400
    assert ask(toy, "PUT", f"{toy.storage_url}/objects/{oid}", data, None)[0] == 200
    assert commit(toy, line)[0] == 200
    assert ask(toy, "GET", "/alice/toy/resolve/main/model.safetensors", token=None) == (200, data)


def test_a_trusted_publisher_gets_a_token_of_one_repo(toy):
    asked = {"subject_token": IDENTITY, "resource": "alice/toy"}
    assert ask(toy, "POST", "/oauth/token", {**asked, "subject_token": "somebody"}, token=None)[0] == 400
    assert ask(toy, "POST", "/oauth/token", {**asked, "resource": "alice/none"}, token=None)[0] == 400
    assert ask(toy, "POST", "/oauth/token", {**asked, "resource": "alice"}, token=None)[0] == 400
    assert ask(toy, "POST", "/api/repos/create", {"name": "other", "organization": "alice"})[0] == 200
    status, answer = ask(toy, "POST", "/oauth/token", asked, token=None)
    token = json.loads(answer)["access_token"]
    line = {"key": "file", "value": {"path": "a", "content": ""}}
    assert status == 200 and commit(toy, line, token=token)[0] == 200
    header = json.dumps({"key": "header", "value": {"summary": "test"}}).encode()
    assert ask(toy, "POST", "/api/models/alice/other/commit/main", header, token)[0] == 403
    assert ask(toy, "POST", "/api/repos/create", {"name": "third", "organization": "alice"}, token)[0] == 403


def test_a_stale_parent_is_refused(toy):
    line = {"key": "file", "value": {"path": "a", "content": ""}}
    parent = toy.repos["models/alice/toy"].branches["main"]
    assert commit(toy, line, parent=parent)[0] == 200
    assert commit(toy, line, parent=parent)[0] == 412
    assert commit(toy, {"key": "deletedFile", "value": {"path": "b"}})[0] == 404


def test_rights(toy):
    assert commit(toy, token=BOB)[0] == 403
    assert commit(toy, token=None)[0] == 401
    assert commit(toy, token="hf_wrong_secret")[0] == 401
    assert ask(toy, "POST", "/api/repos/create", {"name": "toy", "organization": "alice"}, BOB)[0] == 403
    status, body = ask(toy, "POST", "/api/repos/create", {"name": "toy", "organization": "alice"})
    assert status == 409 and json.loads(body)["url"] == f"{toy.url}/alice/toy"
    assert ask(toy, "GET", "/api/whoami-v2", token=None)[0] == 401
    assert ask(toy, "GET", "/no/such/route")[0] == 404


def test_a_range_of_a_file(toy):
    commit(toy, {"key": "file", "value": {"path": "a", "content": "YWJjZGVm"}})
    request = urllib.request.Request(f"{toy.url}/alice/toy/resolve/main/a", headers={"Range": "bytes=2-"})
    with urllib.request.urlopen(request) as answer:
        assert (answer.status, answer.read(), answer.headers["Content-Range"]) == (206, b"cdef", "bytes 2-5/6")


def test_a_mirror_of_models_is_served_as_one_of_data_sets(tmp_path):
    for kind in ("models", "datasets"):
        path = tmp_path / kind / "org" / "name" / "sub" / "file.txt"
        path.parent.mkdir(parents=True)
        path.write_text(kind)
    (tmp_path / "models" / "README.md").write_text("beside the organisations")
    with Hub(datasets=tmp_path / "datasets", models=tmp_path / "models") as hub:
        assert ask(hub, "GET", "/org/name/resolve/main/sub/file.txt", token=None) == (200, b"models")
        assert ask(hub, "GET", "/datasets/org/name/resolve/main/sub/file.txt", token=None) == (200, b"datasets")
