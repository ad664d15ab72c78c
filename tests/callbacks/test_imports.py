"""A user of one callback pays for one callback."""

import subprocess
import sys

import dendrite_zoo.callbacks

HEAVY = "dendrite_zoo.hub dendrite_zoo.rl dendrite_zoo.models dendrite_zoo.streams matplotlib huggingface_hub metaworld"


def test_callbacks_leave_the_hub_robots_and_models_alone():
    script = (
        "import sys, lightning.pytorch\n"
        "before = set(sys.modules)  # torchmetrics itself imports matplotlib, where it is installed\n"
        "import dendrite_zoo.callbacks as callbacks\n"
        f"print(*[name for name in '{HEAVY}'.split() if name in set(sys.modules) - before])\n"
        "assert set(callbacks.__all__) <= set(dir(callbacks))\n"
        "print(callbacks.SuccessLogger.__module__, callbacks.HubPublisher.__module__)\n"
        "print('dendrite_zoo.rl' in sys.modules, 'dendrite_zoo.hub' in sys.modules)\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    early, late, loaded = answer.stdout.splitlines()
    assert early == ""
    assert late == "dendrite_zoo.callbacks.success dendrite_zoo.callbacks.publisher" and loaded == "True True"


def test_every_name_is_there_and_no_other():
    for name in dendrite_zoo.callbacks.__all__:
        assert getattr(dendrite_zoo.callbacks, name).__name__ == name
    assert not hasattr(dendrite_zoo.callbacks, "MiracleLogger")
