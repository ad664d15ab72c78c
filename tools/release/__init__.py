"""A release, rehearsed on one machine: `python -m tools.release`."""
