"""The help of ``fit``, ``validate`` and ``test``: what one types first, then the hundreds of options of Lightning."""

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from dendrite_zoo._core.jsonargparse import arrange_groups

USAGE = {
    "fit": "dendrite-zoo fit --config NAME [--name RUN] [--OPTION VALUE]\n"
    "       dendrite-zoo fit --resume runs/RUN\n\n"
    "such as: dendrite-zoo fit --config permuted-digits --data.init_args.num_tasks 20 --trainer.max_time 00:01:00:00"
}
TITLES = {
    "model": "the module, as a recipe has it (--model.help CLASS lists its options)",
    "data": "the data, as a recipe has it (--data.help CLASS lists its options)",
    "trainer": "Lightning's Trainer",
}


def arrange_help(parser: LightningArgumentParser, command: str) -> None:
    """Let the help of a command begin with how it is typed and its own options; the Trainer's come last."""
    parser.usage = USAGE.get(command, f"dendrite-zoo {command} --config NAME --ckpt_path last [--OPTION VALUE]")
    known = parser.groups or {}
    model, data, trainer = moved = [known[name] for name in TITLES]
    for group, title in zip(moved, TITLES.values(), strict=True):
        group.title = title

    def arranged(groups: list[Any]) -> list[Any]:
        others = [group for group in groups if group not in moved]
        return [*others[:2], model, data, *others[2:], trainer]  # behind positional and own arguments

    arrange_groups(parser, arranged)
