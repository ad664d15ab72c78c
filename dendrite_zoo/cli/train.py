"""``dendrite-zoo fit | validate | test``: Lightning's own command line, with a run folder."""

import inspect
import os
import re
import signal
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from jsonargparse import Namespace, get_loader
from jsonargparse.typing import NonNegativeInt
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.table import Column, Table

import dendrite_zoo.models  # noqa: F401  (so that a config may name its classes)
from dendrite_zoo._core.checkpoints import whole_checkpoint
from dendrite_zoo._core.jsonargparse import write_texts_as_they_are
from dendrite_zoo._core.lightning import require
from dendrite_zoo._core.redact import typed_command
from dendrite_zoo.callbacks import ForgettingLogger, HubPublisher, RunRecorder, SuccessLogger  # noqa: F401
from dendrite_zoo.callbacks.recipe_config import TRAINER
from dendrite_zoo.callbacks.trainer import find_callback
from dendrite_zoo.cli import run_folder
from dendrite_zoo.cli.help import arrange_help
from dendrite_zoo.cli.import_paths import check_import_paths, refuse_dangerous_imports
from dendrite_zoo.cli.parser import Parser, UsageError, set_by_data
from dendrite_zoo.cli.policy_scores import check_playable, policy_scores, success_logger
from dendrite_zoo.cli.recipes import describe, expand, recipes
from dendrite_zoo.cli.run_logger import RunLogger
from dendrite_zoo.hub import HubModel
from dendrite_zoo.lightning_modules import ContinualClassifier, evaluate_contexts
from dendrite_zoo.models import ActiveDendritePolicy
from dendrite_zoo.records import success_curve, write_records
from dendrite_zoo.rl import MT50
from dendrite_zoo.streams import OnlineTasks, PermutedTasks, TaskStream
from dendrite_zoo.streams.rounds import PlayedTasks

SAME = ("callbacks", "limit_val_batches", *TRAINER)
"""What of the Trainer's arguments a run that is resumed cannot change."""
SET_BY_DATA = ("max_epochs", "reload_dataloaders_every_n_epochs", "num_sanity_val_steps")


def train(arguments: list[str], summary: str) -> None:
    """Run ``dendrite-zoo fit | validate | test``.

    Args:
        arguments: the command and its options.
        summary: what the help says of it.

    Raises:
        ValueError: of a recipe, an option or a checkpoint; the message says what to do.
    """
    if arguments[1:] in (["--config", "list"], ["--config=list"], ["-c", "list"]):
        table = Table(Column("name", no_wrap=True), "what it trains", title="Recipes: dendrite-zoo fit --config NAME")
        for name, path in recipes().items():
            table.add_row(name, describe(path))
        Console().print(table)
        return
    refuse_dangerous_imports()
    write_texts_as_they_are()
    try:
        TrainingCLI(arguments, summary)
    except UnpicklingError as error:
        found = "".join(re.findall(r"GLOBAL (\S+)", str(error))[:1])
        raise ValueError(
            f"The checkpoint has more than tensors and plain values ({found or 'something else'}), so it was not read. "
            "If you trust who wrote it: --weights_only false"
        ) from error
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    except SIGTERMException:  # of a validation; fit says how to resume
        sys.exit(128 + signal.SIGTERM)


class _Parser(Parser, LightningArgumentParser):
    """Lightning's parser, whose errors are one line."""

    def options(self) -> set[str]:
        """Of the classes that most recipes name, too."""
        classes = {"model": ContinualClassifier, "data": PermutedTasks}
        named = {f"{key}.{name}" for key, cls in classes.items() for name in inspect.signature(cls).parameters}
        return super().options() | named


class _RunConfig(SaveConfigCallback):
    """Writes the config into the run folder, whatever the logger."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, *, folder: Path, command: str) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.folder, self.command = folder, command

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it, as one starts anew from it."""
        config = self.config.clone()
        config.ckpt_path = None
        del config["resume"]
        self.parser.dump_header = [self.command]  # where a resume finds it
        self.parser.save(config, self.folder / self.config_filename, skip_none=False, overwrite=True)


require(LightningCLI, "_prepare_subcommand_parser", "_parse_ckpt_path")  # overridden below


class TrainingCLI(LightningCLI):
    """LightningCLI whose runs lie in ``runs/<name>/`` and end with a model ready to publish."""

    def __init__(self, args: list[str], summary: str = "") -> None:
        super().__init__(
            parser_class=_Parser,
            parser_kwargs={"prog": "dendrite-zoo", "allow_abbrev": False, args[0]: {"description": summary}},
            datamodule_class=LightningDataModule,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=None,
            args=args,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse them, with names of recipes and ``--resume`` replaced by what they stand for."""
        self.config = parser.parse_args(expand(args))
        trainer = self.config[self.config.subcommand].trainer
        for key in SET_BY_DATA:
            if trainer.get(key) is not None:  # in a YAML file, where the parser does not look
                raise UsageError(set_by_data(f"trainer.{key}"))

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Those of Lightning's that make sense for a stream of tasks."""
        return {name: LightningCLI.subcommands()[name] for name in ("fit", "validate", "test")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's name and its line in a results table; the stream sets the Trainer's epochs."""
        parser.add_argument("--resume", type=str, help="Go on with the run in this folder, such as runs/NAME.")
        parser.add_argument("--name", type=str, help="Name of the run, its folder runs/NAME; default: the config's.")
        parser.add_argument("--method", type=str, help="Line of a results table it belongs to; default: its name.")
        about = "Tasks of a robot recipe in place of its own: names, with commas between, or mt10, mt50 or cw10."
        parser.add_argument("--tasks", type=str, help=about)
        about = "Test goals that a policy plays when its fit ends, and in test, of each task of its data; 0 for none."
        parser.add_argument("--test_goals", type=NonNegativeInt, default=50, help=about)
        for key in SET_BY_DATA:
            parser.link_arguments("data", f"trainer.{key}", _trainer_argument(key), apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Checkpoints hold tensors and plain values only; no other code in them is run, unless the user asks for it."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults(weights_only=True)
        arrange_help(parser, subcommand)
        return parser

    def _parse_ckpt_path(self) -> None:
        """The config says what the model is; Lightning would let the checkpoint's hyperparameters overwrite it."""

    def before_instantiate_classes(self) -> None:
        """Refuse what a recipe may not name, before it is called."""
        check_import_paths(self.config[str(self.subcommand)].as_dict())

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer that writes into the run folder."""
        config = self.config[str(self.subcommand)]
        name = config.name or (Path(str(config.config[0])).stem if config.config else "default")
        self.run_folder = run_folder.folder_of(name)
        self._find_checkpoint(config)
        init = self.config_init[str(self.subcommand)]
        own, logger = init.trainer.callbacks or [], init.trainer.logger
        callbacks = list(own) if isinstance(own, list | tuple) else [own]
        if self.subcommand == "fit":
            self.save_config_callback = _RunConfig
            self.save_config_kwargs = {"folder": self.run_folder, "command": (command := self._command())}
            check_playable(init.data, goals=config.test_goals)
            run_folder.start_run(self.run_folder, resumed=config.ckpt_path is not None)
            metric, method = getattr(init.data, "metric", "val/acc"), config.method or name
            own = success_logger(init.data, callbacks)
            every = run_folder.run_callbacks(self.run_folder, metric, method=method, command=command, given=callbacks)
            callbacks = [*every, *own, *callbacks]
            logger = RunLogger(self.run_folder) if logger is None else logger
        try:
            return super().instantiate_trainer(**kwargs, callbacks=callbacks, logger=logger or False)
        except TypeError as error:  # such as of `--trainer.devices two`
            raise ValueError(str(error)) from error

    def _command(self) -> str:
        """What to type for this run; one that was resumed ends as if it had never stopped."""
        typed = re.sub(r" --ckpt_path[ =]last\b", "", typed_command("dendrite-zoo"))
        resumed = re.match(r"dendrite-zoo fit --resume[ =]('.*?'|\S+)", typed)
        return describe(Path(str(self.config.fit.config[0]))) + typed[resumed.end() :] if resumed else typed

    def _find_checkpoint(self, config: Any) -> None:
        """Resolve ``--ckpt_path last``, where Lightning would go on with an untrained network, and verify the file."""
        path, fit = config.ckpt_path, self.subcommand == "fit"
        if path is None and not fit:
            raise ValueError("Expected `--ckpt_path FILE`, or `--ckpt_path last` for that of the run, but got none.")
        if path is None:
            return
        if path == "last":
            path = run_folder.last_checkpoint(self.run_folder)
        elif "://" not in str(path):
            path = whole_checkpoint(path)
        self.config_init[str(self.subcommand)].ckpt_path = str(path)
        folder = Path(path).resolve().parent
        if fit and folder.name == run_folder.LAST.parent.name:  # else it is no run's
            self._check_same_recipe(Path(os.path.relpath(folder.parent)))

    def _check_same_recipe(self, folder: Path) -> None:
        """Refuse to go on by another recipe: no command would give the result. It may be longer."""
        if not (config := folder / "config.yaml").is_file():
            return
        load = get_loader("yaml")  # parsed by the command's parser, it would import what it names
        before = _recipe(load(config.read_text(encoding="utf-8")))
        now = _recipe(load(self.parser.dump(self.config, skip_none=False))["fit"])
        before["data"]["init_args"] |= run_folder.lengthened(before["data"]["init_args"], now["data"]["init_args"])
        if wrong := "; ".join(run_folder.differences(before, now)):
            raise ValueError(
                f"{folder} was begun by another recipe ({wrong}). Resume it by the same recipe, or by a longer one: "
                "with more `num_tasks` of a stream; or where the tasks of `OnlineTasks` are played at once, with more "
                "`epochs`, and `env_steps` in proportion. For a new run give a new --name; to start it from these "
                f"weights, give --model.init_args.model {folder / 'model'}, and no --ckpt_path."
            )

    def fit(self, **kwargs: Any) -> None:
        """Train, and save the model; Ctrl-C and SIGTERM end it with a checkpoint, and with how to resume."""
        with run_folder.resumable(self.run_folder):
            self.trainer.fit(**kwargs)
            self._save()

    def before_test(self) -> None:
        """Let a policy play as many test goals as were asked for."""
        if isinstance(self.datamodule, PlayedTasks):
            self.datamodule.test_goals = self.config.test.test_goals

    def _save(self) -> None:
        """The model as it would be published, with the record of the run."""
        model, folder, first = (
            getattr(self.model, "model", None),
            self.run_folder / "model",
            self.trainer.is_global_zero,
        )
        if not isinstance(model, HubModel) or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if first:
            model.save_pretrained(folder)  # for a policy is evaluated for minutes, and an environment may fail
        recorder = find_callback(self.trainer, RunRecorder)
        assert recorder is not None
        sequential = find_callback(self.trainer, ForgettingLogger) is not None
        if recorder.record is None and (sequential or not isinstance(model, ActiveDendritePolicy)):
            return  # a run that ended early, or of a module that does not say how it was measured
        record = recorder.collect(self.trainer, self.model, **self._evaluated(model, sequential))
        if first and record is not None:
            write_records([record], self.run_folder / "results.json")
            model.save_pretrained(folder, results=[record.to_json()])

    def _evaluated(self, model: Any, sequential: bool) -> dict[str, Any]:
        """What is measured once training has ended."""
        data = self.datamodule
        if isinstance(model, ActiveDendritePolicy):
            return self._played(model, sequential) if self.trainer.is_global_zero else {}
        classes = isinstance(data, TaskStream) and data.num_classes is not None
        if not classes or self.trainer.world_size > 1:
            return {}
        context = getattr(self.model, "given_context", None)
        scores = evaluate_contexts(model, data, context=context, enable_progress_bar=False)
        return {"accuracy_by_context": {way: statistics.fmean(tasks) for way, tasks in scores.items()}}

    def _played(self, policy: ActiveDendritePolicy, sequential: bool) -> dict[str, Any]:
        """What a policy reaches in the tasks of its data."""
        goals = self.config[str(self.subcommand)].test_goals
        report, record = policy_scores(policy, self.trainer, self.model, goals=goals, sequential=sequential)
        if report is not None and len(report.tasks) < len(policy.tasks):
            known = set(policy.tasks) <= set(MT50)
            how = f"dendrite-zoo evaluate {self.run_folder}" if known else "dendrite_zoo.rl.evaluate_policy, in Python"
            print(
                f"Played goals of {len(report.tasks)} of the policy's {len(policy.tasks)} tasks, those of the data. "
                f"To play all: {how}"
            )
        if report is not None and isinstance(self.datamodule, OnlineTasks):
            record |= {"env_steps": self.datamodule.env_steps, "curve": success_curve(self.run_folder)}
        return record


def _recipe(config: dict[str, Any]) -> dict[str, Any]:
    """What of a config decides the weights."""
    trainer, data = config.get("trainer") or {}, {"init_args": {}, **(config.get("data") or {})}
    data["init_args"].pop("eval_at", None)
    others = {key: config.get(key) for key in ("seed_everything", "model", "optimizer", "lr_scheduler")}
    return {**others, "data": data, "trainer": {key: trainer.get(key) for key in SAME}}


def _trainer_argument(key: str) -> Callable[[Any], Any]:
    def set_by_data(data: Any) -> Any:  # the name stands in --help, and in the error of who sets it, too
        return data.trainer_kwargs()[key]

    return set_by_data
