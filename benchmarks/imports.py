"""How long ``import dendrite_zoo`` takes, against ``import torch``, each in a process of its own.

python benchmarks/imports.py [--rounds 7]
"""

from __future__ import annotations

import subprocess
import sys

from harness import compare, rounds_asked


def seconds_to_import(name: str) -> float:
    """Seconds of the import alone."""
    code = f"import time; start = time.perf_counter(); import {name}; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print one line."""
    rounds = rounds_asked(__doc__, 7)
    seconds: dict[str, list[float]] = {"dendrite_zoo": [], "torch": []}
    for name in seconds:
        seconds_to_import(name)
    for _ in range(rounds):
        for name in seconds:
            seconds[name].append(seconds_to_import(name))
    compare("import", seconds, "dendrite_zoo", "torch", "<= 1.1")


if __name__ == "__main__":
    main()
