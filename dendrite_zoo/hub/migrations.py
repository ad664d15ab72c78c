"""Artifacts of earlier formats, brought to the current one.

Format 1 left arguments out that had their default. Format 2 holds every argument, and a fingerprint over arguments and
tensors. Formats 3 to 5 have further arguments.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dendrite_zoo.hub.config import FORMAT_VERSION, HEADER, Config

State = dict[str, Any]

_NETWORK = {
    **{"gate": "abs_max", "activation": "k-winners", "winners": "activation", "segment_density": 1.0},
    **dict.fromkeys(["context_density", "input_density", "segment_seed"]),
}
_CONTINUAL = {**_NETWORK, "activation_density": 0.05, "weight_density": 0.5, "dendrite_layers": None}
_ROBOT = {
    **{**_NETWORK, "activation_density": 0.25, "weight_density": 0.9, "dendrite_layers": [1], "append_task": False},
    **{"observation_size": 39, "action_size": 4, "hidden_features": [2800, 2800], "num_segments": 10},
}
FORMAT_1_DEFAULTS: dict[str, dict[str, Any]] = {
    "active-dendrite-mlp": {**_CONTINUAL, "context_density": 0.1},
    "active-dendrite-classifier": {**_CONTINUAL, "num_segments": None, "context": "prototype"},
    "active-dendrite-policy": {**_ROBOT, "log_std_range": [-20.0, 2.0]},
    "twin-critic": _ROBOT,
    "xdg-classifier": {"gate_fraction": 0.8},
}
"""What each ``model_type`` meant by an argument that a config of format 1 leaves out; never to be changed."""

FORMAT_1_NAMES = {"modulated": "dendrite_layers", "gated": "gate_fraction"}


def to_format_2(config: Config, state: State, defaults: Mapping[str, Any]) -> tuple[Config, State]:
    """Rename arguments, and fill in those that were left out; a stranger's class is asked for its defaults."""
    renamed = {FORMAT_1_NAMES.get(key, key): value for key, value in config.items()}
    config = {**FORMAT_1_DEFAULTS.get(config["model_type"], dict(defaults)), **renamed}
    if config.get("winners") == "context":
        config["segment_seed"] = 0  # the segments themselves are in the file
    return config, state


FORMAT_2_DEFAULTS: dict[str, Any] = {
    **{"layer_norm": False, "overlap": None, "output_scale": 1.0, "log_std_bound": "clamp"},
    **dict.fromkeys(["observation_features", "observation_clip"]),
}
"""What models of format 2, which had not these arguments, mean by them; never to be changed."""


FORMAT_3_DEFAULTS: dict[str, Any] = {"output_bias": True}
"""Likewise of format 3; never to be changed."""


FORMAT_4_DEFAULTS: dict[str, Any] = {"context_features": None}
"""Likewise of format 4; never to be changed."""


FORMAT_5_DEFAULTS: dict[str, Any] = {"additive_segments": False}
"""Likewise of format 5; never to be changed."""


def fill_in(meant: dict[str, Any], config: Config, state: State, defaults: Mapping[str, Any]) -> tuple[Config, State]:
    """Fill in the arguments that a format did not have, where a class has them today."""
    return {**{name: value for name, value in meant.items() if name in defaults}, **config}, state


MIGRATIONS: dict[int, Callable[[Config, State, Mapping[str, Any]], tuple[Config, State]]] = {
    1: to_format_2,
    2: partial(fill_in, FORMAT_2_DEFAULTS),
    3: partial(fill_in, FORMAT_3_DEFAULTS),
    4: partial(fill_in, FORMAT_4_DEFAULTS),
    5: partial(fill_in, FORMAT_5_DEFAULTS),
}
"""Format version ``v`` to the function that turns its (config, state) into those of ``v + 1``."""


def migrate(config: Mapping[str, Any], state: State, defaults: Mapping[str, Any]) -> tuple[Config, State]:
    """Bring a config and its state dict from their format version to the current one.

    Args:
        config: the whole config.json.
        state: the tensors of the file.
        defaults: of the constructor's arguments, as they are today.
    """
    config, state = dict(config), dict(state)
    while (version := config["format_version"]) < FORMAT_VERSION:
        config, state = MIGRATIONS[version](config, state, defaults)
        config["format_version"] = version + 1
    header = {key: config[key] for key in HEADER}
    return {**header, **config}, state
