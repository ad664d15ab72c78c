"""The first file that a worker process runs: it imports this package without torch.

Environments need NumPy and Meta-World alone. Without torch a worker starts two seconds earlier and takes 200 MB less.
So `dendrite_zoo.rl.worker.Worker` has a new process run this file, which puts empty packages in the place of
``dendrite_zoo`` and ``dendrite_zoo.rl``, in that process alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def run(*arguments: Any) -> None:
    """Answer requests, with empty packages in place."""
    here = Path(__file__).parent
    for name, folder in (("dendrite_zoo", here.parent), ("dendrite_zoo.rl", here)):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]
    from dendrite_zoo.rl.worker import serve

    serve(*arguments)


if __name__ == "worker":
    run(*globals()["arguments"])
