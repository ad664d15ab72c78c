"""A process that speaks to a hub: runs snippets of Python sent to it, and answers with their results.

``HF_ENDPOINT`` and its like are read when the client is imported, so each hub and each setting needs a process
of its own; one process serves many tests. Waits are cut short.
"""

import contextlib
import io
import json
import logging
import os
import time
import traceback


def serve(line, environment):
    """Answer snippet after snippet of a connection, with these variables set before the client is imported."""
    os.environ.clear()
    os.environ.update(environment)
    really_sleep = time.sleep
    time.sleep = lambda seconds: really_sleep(min(seconds, 0.01))

    import torch
    from huggingface_hub import HfApi  # noqa: F401 - now, for calls have deadlines

    import dendrite_zoo.hub.publish.upload as publishing
    from dendrite_zoo.hub import HubModel, retry
    from tests.hub.toy import Toy

    torch.set_num_threads(1)
    retry.SILENCE = 1.0
    retry.TIMEOUTS = 3  # times HF_HUB_DOWNLOAD_TIMEOUT, which is 1 s
    while True:
        snippet, said = line.recv(), io.StringIO()
        handler = logging.StreamHandler(said)
        for name in ("dendrite_zoo", "huggingface_hub"):
            logging.getLogger(name).handlers = [handler]
            logging.getLogger(name).setLevel(logging.DEBUG)
        answer = {"error": None, "result": None}
        names = {"torch": torch, "Toy": Toy, "HubModel": HubModel, "result": None, "publishing": publishing}
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                exec(snippet, names)
            answer["result"] = names["result"]
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}"
            answer["trace"] = traceback.format_exc()
        answer["said"] = said.getvalue()
        line.send(json.dumps(answer))
