"""What a result was computed with: versions of packages, and the machine."""

import importlib.metadata
import os
import platform
from pathlib import Path

import torch


def versions(*more: str) -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on.

    Args:
        *more: further packages, such as ``"mujoco"``.
    """
    packages = ("dendrite-zoo", "torch", "lightning", "torchmetrics", "numpy", *more)
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def memory() -> float:
    """The memory of the machine in bytes; infinite where the system does not say."""
    names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
    known = all(name in getattr(os, "sysconf_names", ()) for name in names)
    return float(os.sysconf(names[0]) * os.sysconf(names[1])) if known else float("inf")


def hardware() -> str:
    """The machine in a few words: processor, cores, accelerator."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), processor)
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    return f"{processor}, {os.cpu_count()} cores, {accelerator}"
