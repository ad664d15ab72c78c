"""The first file that a worker process runs: it imports this package without torch.

Meta-World's environments need NumPy alone. Without torch a worker starts two seconds earlier and takes 200 MB less.
So `dendrite_zoo.rl.worker.Worker` has a new process run this file, which puts empty packages in the place of
``dendrite_zoo`` and ``dendrite_zoo.rl``, in that process alone. Where somebody's own environment asks one of them for
more than it has, it becomes the whole package.
"""

import sys
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


class Package(ModuleType):
    """A package whose ``__init__`` runs when a name in it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None and self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


if __name__ == "worker":
    here = Path(__file__).parent
    for name, folder in (("dendrite_zoo", here.parent), ("dendrite_zoo.rl", here)):
        package = sys.modules[name] = Package(name)
        package.__path__ = [str(folder)]
        package.__spec__ = spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
    from dendrite_zoo.rl.worker import serve

    serve(*globals()["arguments"])
