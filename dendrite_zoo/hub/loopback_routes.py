"""The routes of a Hub on one's own machine: what the client asks, and what the Hub would answer."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from dendrite_zoo.hub.loopback_http import Connection, Refusal, route
from dendrite_zoo.hub.loopback_state import IDENTITY, LARGE, Files, Repo, entry

DATE = "2022-01-01T00:00:00.000Z"


class Handler(Connection):
    """The routes, each named as `Hub.fail` has it."""

    def names(self) -> tuple[str, ...]:
        """Give the namespaces of whoever asks; of a trusted publisher's token the one repo that it is for."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.users.get(token, ())

    def repo(self, kind: str, id: str, right: str = "see") -> Repo:
        """Find a repo that whoever asks may ``"see"``, ``"read"`` the files of, or ``"write"`` to."""
        names, repo = self.names(), self.hub.repos.get(f"{kind}/{id}")
        mine, denied = bool({id.partition("/")[0], id} & set(names)), 403 if names else 401
        if repo is None or (repo.private and not mine):
            raise Refusal(404 if names else 401, "Repository not found", "RepoNotFound")
        if right == "write" and not mine:
            raise Refusal(denied, "You don't have the rights to write to this repo")
        if right == "read" and repo.gated and not mine:
            raise Refusal(denied, "Access to this repo is restricted", "GatedRepo")
        return repo

    def commit_of(self, repo: Repo, revision: str) -> tuple[str, Files]:
        """Give a commit's SHA and files."""
        sha = repo.branches.get(revision) or repo.tags.get(revision) or revision
        if sha not in repo.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, repo.commits[sha]

    @route("GET /api/whoami-v2")
    def _whoami(self) -> None:
        user, *orgs = self.names() or [""]
        if not user:
            raise Refusal(401, "Invalid credentials in Authorization header")
        self.reply({"type": "user", "name": user, "orgs": [{"name": name} for name in orgs]})

    @route("POST /oauth/token")
    def _exchange(self) -> None:
        """Give a trusted publisher a token of one repo, which must exist."""
        asked = json.loads(self.body)
        repo = str(asked["resource"])
        if asked["subject_token"] != IDENTITY or f"models/{repo}" not in self.hub.repos:
            raise Refusal(400, "invalid_grant")
        token = f"hf_jwt_{repo}"
        self.hub.users[token] = (repo,)
        self.reply({"access_token": token, "token_type": "bearer", "expires_in": 3600})

    @route("POST /api/repos/create")
    def _create(self) -> None:
        asked, names = json.loads(self.body), self.names()
        owner = asked.get("organization") or next(iter(names), "")
        key = f"{asked.get('type') or 'model'}s/{owner}/{asked['name']}"
        if owner not in names:
            raise Refusal(403 if names else 401, f"You don't have the rights to create a repo under {owner}")
        answer = {"url": f"{self.hub.url}/{owner}/{asked['name']}"}
        with self.hub.lock:
            if key in self.hub.repos:
                raise Refusal(409, "You already created this repo", **answer)
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.hub.repos[key] = repo = Repo(private)
            repo.add({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.reply(answer)

    @route("POST /api/validate-yaml")
    def _validate_yaml(self) -> None:
        whole = re.match(r"---\n.*?\n---\n", json.loads(self.body)["content"], re.DOTALL)
        self.reply({"errors": [] if whole else [{"message": "no metadata"}], "warnings": []})

    @route("POST /api/REPO/preupload/(?P<revision>.+)")
    def _preupload(self, kind: str, id: str, revision: str) -> None:
        _, files = self.commit_of(self.repo(kind, id, "write"), revision)
        answer = []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            known = entry(path, files[path]) if path in files else {}
            mode = {"uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}
            answer.append({"path": path, "oid": known.get("lfs", known).get("oid"), **mode})
        self.reply({"files": answer})

    @route(r"POST FILES\.git/info/lfs/objects/batch")
    def _batch(self, kind: str, id: str) -> None:
        self.repo(kind, id, "write")
        objects = json.loads(self.body)["objects"]
        for asked in objects:
            place, size = f"/objects/{asked['oid']}", self.hub.part_size
            url, parts = self.hub.storage_url + place, -(-asked["size"] // size)
            upload: dict[str, Any] = {"href": url}
            if parts > 1:
                urls = {str(n + 1): f"{url}?part={n}" for n in range(parts)}
                upload = {"href": f"{url}/complete", "header": {"chunk_size": str(size), **urls}}
            if asked["oid"] not in self.hub.objects:
                asked["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}{place}/verify"}}
        self.reply({"transfer": "basic", "objects": objects})

    @route("PUT /objects/(?P<oid>[0-9a-f]{64})")
    def _upload(self, oid: str) -> None:
        if "part" in self.query:
            self.hub.parts[f"{oid}-{self.query['part'][0]}"] = self.body
        else:
            self.keep(oid, self.body)
        self.reply({}, headers={"ETag": hashlib.md5(self.body).hexdigest()})

    @route("POST /objects/(?P<oid>[0-9a-f]{64})/complete")
    def _complete(self, oid: str) -> None:
        count = len(json.loads(self.body)["parts"])
        self.keep(oid, b"".join(self.hub.parts.pop(f"{oid}-{n}") for n in range(count)))
        self.reply({})

    @route("POST /objects/(?P<oid>[0-9a-f]{64})/verify")
    def _verify(self, oid: str) -> None:
        if len(self.hub.objects.get(oid, b"")) != json.loads(self.body)["size"]:
            raise Refusal(404, "no such object")
        self.reply({})

    def keep(self, oid: str, data: bytes) -> None:
        """Store an object, if it is what it was announced as."""
        if hashlib.sha256(data).hexdigest() != oid:
            raise Refusal(400, "the content does not have the sha256 it was announced with")
        self.hub.objects[oid] = data

    @route("POST /api/REPO/commit/(?P<revision>.+)")
    def _commit(self, kind: str, id: str, revision: str) -> None:
        header, *lines = (json.loads(line) for line in self.body.splitlines() if line)
        with self.hub.lock:
            repo = self.repo(kind, id, "write")
            head, files = self.commit_of(repo, revision)
            files = dict(files)
            if header["value"].get("parentCommit") not in (None, head):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            for line in lines:
                value, path = line["value"], line["value"]["path"]
                if line["key"] == "file":
                    files[path] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    if value["oid"] not in self.hub.objects:
                        raise Refusal(400, f"{path}: the LFS object was never uploaded")
                    files[path] = self.hub.objects[value["oid"]]
                elif files.pop(path, None) is None:
                    raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            sha = repo.add(files, header["value"]["summary"], revision)
        self.reply({"commitOid": sha, "commitUrl": f"{self.hub.url}/{id}/commit/{sha}", "success": True})

    @route("POST /api/REPO/(?P<what>tag|branch)/(?P<revision>.+)")
    def _ref(self, kind: str, id: str, what: str, revision: str) -> None:
        repo, asked = self.repo(kind, id, "write"), json.loads(self.body)
        refs, name = (repo.tags, asked["tag"]) if what == "tag" else (repo.branches, revision)
        if name in refs:
            raise Refusal(409, f"{name} exists already")
        refs[name], _ = self.commit_of(repo, revision if what == "tag" else asked.get("startingPoint", "main"))
        self.reply({})

    @route("GET /api/REPO/refs")
    def _refs(self, kind: str, id: str) -> None:
        repo = self.repo(kind, id)
        refs = {"branches": repo.branches, "tags": repo.tags, "converts": {}}
        self.reply({k: [{"name": n, "ref": n, "targetCommit": v[n]} for n in v] for k, v in refs.items()})

    @route("(?:GET|POST) /api/REPO/(?P<what>tree|paths-info)/(?P<revision>[^/]+)")
    def _tree(self, kind: str, id: str, what: str, revision: str) -> None:
        _, files = self.commit_of(self.repo(kind, id), revision)
        asked = parse_qs(self.body.decode())["paths"] if what == "paths-info" else sorted(files)
        self.reply([entry(path, files[path]) for path in asked if path in files])

    @route("GET /api/REPO(?:/revision/(?P<revision>.+))?")
    def _info(self, kind: str, id: str, revision: str) -> None:
        self.reply(self.about(id, self.repo(kind, id), "main" if revision == "models" else revision))

    @route("GET /api/(?P<kind>models|datasets)")
    def _list(self, kind: str) -> None:
        repos = {key.partition("/")[2]: repo for key, repo in self.hub.repos.items() if key.startswith(kind)}
        mine, wanted = self.names(), set(self.query.get("filter", []))
        seen = (self.about(i, r, "main") for i, r in repos.items() if not r.private or i.split("/")[0] in mine)
        self.reply([about for about in seen if wanted <= set(about["tags"])])

    def about(self, id: str, repo: Repo, revision: str) -> dict[str, Any]:
        """Describe a repo at a revision as the Hub does."""
        from huggingface_hub import ModelCard

        sha, files = self.commit_of(repo, revision)
        card = files.get("README.md", b"").decode()
        data = ModelCard(card, ignore_metadata_errors=True).data.to_dict() if card else {}
        library = {key: data[key] for key in ("library_name", "pipeline_tag") if key in data}
        tags = {"tags": [*data.get("tags", []), *library.values()], "cardData": data, **library}
        listed = {"siblings": [entry(path, files[path]) for path in sorted(files)], "lastModified": DATE}
        gated = "manual" if repo.gated else False
        return {"_id": id, "id": id, "sha": sha, "private": repo.private, "gated": gated, **tags, **listed}

    @route("(?:GET|HEAD) /storage/(?P<oid>[0-9a-f]{64})")
    def _storage(self, oid: str) -> None:
        if self.headers.get("Authorization"):
            raise Refusal(400, "a token was sent to the storage host")
        self.send(self.hub.objects[oid], oid, {})

    @route("(?:GET|HEAD) FILES/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def _resolve(self, kind: str, id: str, revision: str, path: str) -> None:
        sha, files = self.commit_of(self.repo(kind, id, "read"), revision)
        headers = {"X-Repo-Commit": sha}
        if path not in files:
            raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound", sha)
        about = entry(path, files[path])
        if "lfs" not in about:
            return self.send(files[path], about["oid"], headers)
        oid, size = about["lfs"]["oid"], str(about["size"])
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": size}
        self.reply(b"", 302, {**headers, **linked, "Location": f"{self.hub.storage_url}/storage/{oid}"})

    def send(self, data: bytes, etag: str, headers: Mapping[str, str]) -> None:
        """Send a file, or the range of it that was asked for."""
        status, headers = 200, {**headers, "ETag": f'"{etag}"'}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is not None:
            start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            status, headers["Content-Range"] = 206, f"bytes {start}-{end}/{len(data)}"
            data = data[start : end + 1]
        self.reply(data, status, headers)
