"""These pipelines run real libraries, `make strangers`: where those are not installed, nothing is collected."""

from importlib.util import find_spec

if find_spec("torchgeo") is None:
    collect_ignore_glob = ["test_*.py"]
