"""Faults of a Hub, one or several in a row, while a model is loaded from it or published to it.

What ends well is right to the bit; else there is one clear error in a bounded time, without the token, and the same
call succeeds once the fault has passed: nothing bad stays in the cache, nothing half is published.
"""

import hashlib
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaign.verdict import Wrong

TOKEN = "hf_campaign_secret"
LOADING = ("resolve", "storage")
PUBLISHING = ("create", "info", "preupload", "validate_yaml", "batch", "upload", "verify", "commit", "ref", "refs")
STATUSES = (400, 401, 403, 404, 408, 409, 410, 412, 418, 422, 429, 500, 502, 503, 504)
WAYS = ("drop", "cut", "lose", "corrupt", "hang", "slow", "slow body")
MOST_SECONDS = 12.0  # of one call: the deadline is 3 s here, and a case may wait for what it left behind


def set_environment() -> None:
    """Short patience; the Hub's address follows once it is known, before the client is imported."""
    os.environ |= {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "HF_HOME": tempfile.mkdtemp()}
    from dendrite_zoo.hub.loopback import Hub

    hub = Hub(users={TOKEN: ["me"]}, part_size=4096)
    os.environ["HF_ENDPOINT"] = hub.url
    HUBS.append(hub.__enter__())


HUBS: list[Any] = []


def faults(folder: Path) -> Callable[[int], None]:
    """Cases of loading and of publishing, in turn."""
    from dendrite_zoo.hub import retry
    from dendrite_zoo.hub.loopback import Repo
    from tests.campaign.models import originals
    from tests.campaign.records import Said

    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.05))
    retry.TIMEOUTS, retry.SILENCE = 3, 1.0
    (hub,), said, saved = HUBS, Said(), originals(folder)
    for one in saved:
        (one.folder / "matrix.png").unlink(missing_ok=True)

    def fresh() -> None:
        hub.faults.clear(), hub.repos.clear(), hub.objects.clear(), hub.log.clear(), said.lines.clear()

    def loading(draw: random.Random, number: int) -> Callable[[], None]:
        import dendrite_zoo

        original, cache = draw.choice(saved), folder / f"cache-{number}"
        files = {path.name: path.read_bytes() for path in original.folder.iterdir()}
        hub.objects |= {hashlib.sha256(data).hexdigest(): data for data in files.values()}
        commit = hub.repos.setdefault("models/me/toy", Repo()).add(files, "put")
        x = draw.choice(["me/toy", f"me/toy@{commit}"])

        def call() -> None:
            model = dendrite_zoo.load(x, cache_dir=cache)
            original.same(model)
            for path in cache.rglob("blobs/*"):
                data = path.read_bytes()
                names = hashlib.sha256(data).hexdigest(), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                if path.name not in names and path.suffix != ".incomplete":
                    raise Wrong(f"{path.name} in the cache is not what its name says")

        return call

    def publishing(draw: random.Random, number: int) -> Callable[[], None]:
        from dendrite_zoo.hub.publish import publish

        original = draw.choice(saved)

        def call() -> None:
            release = publish(original.folder, "me/toy")
            repo = hub.repos["models/me/toy"]
            if repo.branches["main"] != release.commit or repo.tags != {release.tag: release.commit}:
                raise Wrong(f"published as {release.commit}, {release.tag}, but there are {repo.branches}, {repo.tags}")
            there = repo.commits[release.commit]
            for name in ("config.json", "model.safetensors", "results.json"):
                if there[name] != (original.folder / name).read_bytes():
                    raise Wrong(f"{name} on the Hub is another one")

        return call

    def case(number: int) -> None:
        fresh()
        draw = random.Random(number)
        make, places = draw.choice([(loading, LOADING), (publishing, (*PUBLISHING, "commit", "ref", "upload"))])
        call = make(draw, number)
        for _ in range(draw.choice([1, 1, 2, 3])):
            wait = draw.choice([None, None, None, 0, 1, 100_000])
            how = draw.choice(draw.choice([STATUSES, WAYS]))
            hub.fail(draw.choice(places), how, draw.choice([1, 1, 2, 4, 100]), retry_after=wait)
        asked, begun = [fault for fault in hub.faults], time.monotonic()
        try:
            call()
        except Exception as error:
            took = time.monotonic() - begun
            hub.faults.clear()
            _recovers(call, asked)
            if took > MOST_SECONDS:
                raise Wrong(f"an error after {took:.0f} s of {asked}") from error
            if TOKEN in str(error) or any(TOKEN in text for text in said.lines):
                raise Wrong("the token stands in what was said") from error
            raise
        if time.monotonic() - begun > 2 * MOST_SECONDS:
            raise Wrong(f"{time.monotonic() - begun:.0f} s for {asked}")

    return case


def _recovers(call: Callable[[], None], asked: list[Any]) -> None:
    """What failed succeeds once the Hub is well; a request that was left to itself may still be on its way."""
    for attempt in range(8):
        try:
            return call()
        except Exception as error:
            if attempt == 7:
                raise Wrong(f"after {asked[:3]} it fails for good: {type(error).__name__}: {error}") from error
            import threading

            threading.Event().wait(0.5)  # time.sleep is cut short
