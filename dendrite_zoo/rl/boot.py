"""The first thing that a worker process runs: this package without what its ``__init__`` brings.

Playing needs NumPy and Meta-World. Without torch a worker starts two seconds earlier and is 200 MB smaller. So
`dendrite_zoo.rl.worker.Worker` has a new process run this file, which puts bare packages in the place of
``dendrite_zoo`` and ``dendrite_zoo.rl``, in that process alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def run(*arguments: Any) -> None:
    """Serve, in a package that is bare."""
    here = Path(__file__).parent
    for name, folder in (("dendrite_zoo", here.parent), ("dendrite_zoo.rl", here)):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]
    from dendrite_zoo.rl.worker import serve

    serve(*arguments)


if __name__ == "worker":
    run(*globals()["arguments"])
