"""The first file that a worker process runs: it imports this package without torch.

Environments need NumPy and Meta-World alone. Without torch a worker starts two seconds earlier and takes 200 MB less.
So `dendrite_zoo.rl.worker.Worker` has a new process run this file, which puts empty packages in the place of
``dendrite_zoo`` and ``dendrite_zoo.rl``, in that process alone.
"""

import sys
from pathlib import Path
from types import ModuleType

if __name__ == "worker":
    here = Path(__file__).parent
    for name, folder in (("dendrite_zoo", here.parent), ("dendrite_zoo.rl", here)):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]
    from dendrite_zoo.rl.worker import serve

    serve(*globals()["arguments"])
