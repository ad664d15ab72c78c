"""The command `dendrite-zoo`: which commands there are; each is a file beside this one."""

import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from dendrite_zoo import __version__
from dendrite_zoo.cli.parser import Parser, UsageError, explain

COMMANDS = {
    "demo": "Load a pretrained model, teach it two new tasks, and see what it forgets; takes less than a minute.",
    "list": "List the pretrained models of the zoo.",
    "evaluate": "Evaluate a classifier with its context inferred, given and constant, or a policy on test goals.",
    "publish": "Publish a model with its card to the Hugging Face Hub; after a failure, run it again.",
    "hub": "Run a small Hub on this machine, to try publishing and loading without an account; Ctrl-C ends it.",
    "report": "Put the results of several runs into one table, beside published ones; seeds of one recipe are merged.",
}
TRAINER_COMMANDS = {
    "fit": "Train by a recipe, fit --config NAME (see fit --config list), or resume a run, fit --resume runs/NAME.",
    "validate": "Evaluate a checkpoint on what fit validates on: the test split or val_fraction of training data.",
    "test": "Evaluate a checkpoint on the test split of the stream of a recipe.",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command; errors of use are one line on stderr."""
    argv = list(sys.argv[1:] if args is None else args)
    if argv[:1] in ([], ["help"]):
        argv = [*argv[1:2], "--help"]
    name = argv[0]
    # Lightning 2.6 asks `isinstance(spec, LeafSpec)`, which torch 2.13 deprecates: nothing a user could act upon.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
    if name in ("validate", "test"):  # the callbacks that write a run folder are those of fit alone, and rightly so
        warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks used to create")
    try:
        if name in TRAINER_COMMANDS:
            from dendrite_zoo.cli.train import train

            train(argv, TRAINER_COMMANDS[name])
        else:
            _run(argv)
    except KeyboardInterrupt:
        print(f"dendrite-zoo {name}: stopped by SIGINT before it began. Start it again.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except UsageError as error:
        command = f"dendrite-zoo {name}" if name in {**COMMANDS, **TRAINER_COMMANDS} else "dendrite-zoo"
        print(f"{command}: {error} See: {command} --help", file=sys.stderr)
        sys.exit(2)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"dendrite-zoo {name}: {explain(str(error))}")


def _run(argv: list[str]) -> None:
    about = "Networks with active dendrites: pretrained, trainable, and measured for what they forget."
    parser = Parser(prog="dendrite-zoo", description=about, version=__version__, allow_abbrev=False)
    commands = parser.add_subcommands(dest="command", required=True)
    for name, summary in {**COMMANDS, **TRAINER_COMMANDS}.items():
        command = Parser(description=summary)
        if name in argv[:1]:
            import_module(f"dendrite_zoo.cli.{name}").add_arguments(command)
        commands.add_subcommand(name, command, help=summary)
    parsed = parser.parse_args(argv)
    chosen = parsed.pop("command")
    import_module(f"dendrite_zoo.cli.{chosen}").run(**parsed[chosen].as_dict())


if __name__ == "__main__":
    main()
