"""The command `dendrite-zoo`."""
