"""The card of a model: what it is, how to use it, what it forgot, how it was made, each number from a record."""

import itertools
import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dendrite_zoo.functional import forgetting_per_task, learned_part, summarize, weight_sparsity
from dendrite_zoo.hub import artifact
from dendrite_zoo.hub import config as configs
from dendrite_zoo.hub.arguments import plain
from dendrite_zoo.hub.model import HubModel
from dendrite_zoo.hub.publish.kinds import KINDS, kind_of
from dendrite_zoo.hub.publish.merge import front, merge, read_card
from dendrite_zoo.hub.results import usable_results
from dendrite_zoo.records import ResultRecord
from dendrite_zoo.rl import MT50

logger = logging.getLogger(__name__)

DATASETS = {"mnist": "ylecun/mnist"}  # the last word of a benchmark's name, where its data are on the Hub
MOST_TASKS, MOST_LAYERS = 20, 100


class Card:
    """What is known of one model, and the card and picture made of it.

    Args:
        model: with its results; the first record is its own, as are others of the same method.
        header: the first keys of its config.json, as they stand in the file.
        name: of the repo or the zoo entry.
        source: what `dendrite_zoo.load` is to be given.
        base_model: ``org/name`` it was fine-tuned from.
    """

    def __init__(
        self, model: HubModel, header: Mapping[str, Any], *, name: str, source: str, base_model: str = ""
    ) -> None:
        self.name, self.source, self.base_model = name, source, base_model
        self.arguments = plain(model.config)
        self.meta_world = set(self.arguments.get("tasks", ())) <= set(MT50)
        of_others = f"{model.model_type} of other tasks"
        self.learned = getattr(model, "learned_tasks", ())
        self.normalised = any(getattr(model, "task_normalizers", {}).values())
        self.kind = kind_of(of_others if not self.meta_world and of_others in KINDS else model.model_type)
        self.config = {**header, **self.arguments}
        state = cast(nn.Module, model).state_dict()
        self.state = model.to_file(self.arguments, state)
        self.final = any(name.endswith("head.triangle") and name not in self.state for name in state)
        self.size = sum(parameter.numel() for parameter in cast(nn.Module, model).parameters())
        self.records = usable_results(model.results) or []
        self.results = [_printable(record) for record in self.records]
        self.own = [record for record in self.results if record.get("method") == self.results[0].get("method")]
        rows = self.own[0].get("matrix") if self.own else None
        self.matrix = torch.tensor([[math.nan if x is None else x for x in row] for row in rows]) if rows else None

    def text(self, *, picture: bool, skills: bool = False, page: int = 0) -> str:
        """Give the whole README.md.

        Args:
            picture: whether ``matrix.png`` lies beside it.
            skills: whether ``skills.gif`` does.
            page: size of the ``report.html`` beside it in bytes; 0 for none.
        """
        import jinja2

        loader = jinja2.PackageLoader("dendrite_zoo.hub.publish")
        environment = jinja2.Environment(loader=loader, undefined=jinja2.ChainableUndefined, keep_trailing_newline=True)
        environment.filters |= {"number": _number, "json": json.dumps, "count": _count, "cell": _cell}
        metrics = {} if self.matrix is None else summarize(self.matrix)
        measured = {
            "metrics": metrics,
            "tasks": self._tasks(),
            "unplayed": self._unplayed(),
            "layers": self._layers(),
            "picture": picture,
            "skills": skills,
            "page": page,
        }
        nonzero = sum(int(t.count_nonzero()) for t in self.state.values() if t.is_floating_point())
        body = environment.get_template(self.kind.template).render(vars(self), **measured, nonzero=nonzero)
        return front(self.metadata()) + "\n" + body

    def metadata(self) -> dict[str, Any]:
        """Give what the Hub indexes: the YAML at the head of the card."""
        from huggingface_hub import ModelCardData

        benchmarks = [record["benchmark"] for record in self.own if record.get("benchmark")]
        datasets = [DATASETS[last] for b in benchmarks if (last := b.rpartition("-")[2]) in DATASETS]
        data = ModelCardData(
            library_name=configs.LIBRARY_NAME,
            license="apache-2.0",
            pipeline_tag=self.kind.pipeline_tag,
            tags=list(dict.fromkeys([configs.LIBRARY_NAME, *self._tags(), *benchmarks])),
            datasets=list(dict.fromkeys(datasets)) or None,
            base_model=self.base_model or None,
            model_name=self.name,
            eval_results=[result for record in self.own for result in self._eval_results(record)] or None,
        )
        return data.to_dict()

    def _tags(self) -> tuple[str, ...]:
        """Those of the kind; how a policy learned its record says."""
        played = bool(self.own and self.own[0].get("env_steps"))
        how = ["reinforcement-learning" if played else "imitation-learning"] if self.own else []
        return tuple(
            itertools.chain.from_iterable(how if tag == "imitation-learning" else [tag] for tag in self.kind.tags)
        )

    def draw(self, path: Path) -> bool:
        """Draw the accuracy matrix, else the sub-networks; False without either, or with nothing to draw them with."""
        from dendrite_zoo.report import plot_matrix, plot_subnetworks

        subnetworks = self.own[0].get("subnetworks") if self.own else None
        try:
            if self.matrix is not None:
                plot_matrix(self.matrix, path, title=self.name)
            elif subnetworks:
                plot_subnetworks(subnetworks, path, title=self.name, tasks=self.own[0].get("tasks"))
        except (ImportError, ValueError) as error:
            logger.warning("the card goes without its picture: %s", error)
            return False
        return self.matrix is not None or bool(subnetworks)

    def write_page(self, path: Path) -> int:
        """Write a page to look at the records; give its bytes, 0 where there are none or nothing to draw with."""
        from dendrite_zoo.report import Run, write_page

        try:
            runs = [Run.of_record(record) for record in map(ResultRecord.from_json, self.records)]
            return write_page(runs, path).stat().st_size if runs else 0
        except (ImportError, ValueError) as error:
            logger.warning("the card goes without its page: %s", error)
            return 0

    def _eval_results(self, record: Mapping[str, Any]) -> list[Any]:
        from huggingface_hub import EvalResult

        values = {record.get("metric", self.kind.metric): (record.get("average_accuracy"), record.get("num_tasks"))}
        if record is self.own[0] and self.matrix is not None:
            lost = summarize(self.matrix)["forgetting"]
            values["forgetting"] = None if math.isnan(lost.value) else round(lost.value, 6), lost.tasks
        benchmark = str(record.get("benchmark"))
        return [
            EvalResult(
                task_type=self.kind.pipeline_tag or "other",
                task_name=self.kind.task,
                dataset_type=DATASETS.get(benchmark.rpartition("-")[2], benchmark),
                dataset_name=benchmark,
                metric_type=metric,
                metric_value=value,
                metric_name=f"mean {metric} over {_count(tasks)}, context {record.get('context_at_test')}",
            )
            for metric, (value, tasks) in values.items()
            if value is not None
        ]

    def _tasks(self) -> list[dict[str, Any]]:
        if self.matrix is None:
            return []
        R = learned_part(self.matrix)
        lost = forgetting_per_task(R)
        tasks = sorted(lost.nan_to_num(nan=-math.inf).topk(min(MOST_TASKS, len(R))).indices.tolist())
        return [
            {"name": j, "learned": R[j, j], "best": lost[j] + R[-1, j], "now": R[-1, j], "forgotten": lost[j]}
            for j in tasks
        ]

    def _unplayed(self) -> list[str]:
        """The tasks of a policy of which its record has nothing."""
        played = self.own[0].get("tasks") if self.own else None
        return [task for task in self.arguments.get("tasks", ()) if task not in played] if played else []

    def _layers(self) -> dict[str, dict[str, Any]]:
        weights = {name: t.float() for name, t in self.state.items() if name.endswith(".weight") and t.ndim > 1}
        layers = {name[: -len(".weight")]: {"weight_sparsity": weight_sparsity(t)} for name, t in weights.items()}
        for name, values in self.own[0].get("sparsity", {}).items() if self.own else ():
            layers[name] = {**layers.get(name, {}), **values}
        return dict(itertools.islice(layers.items(), MOST_LAYERS))


def write_card(model: HubModel, folder: Path, name: str) -> None:
    """Write the card of a zoo entry, and its picture, beside its files; what a person wrote into the card stays."""
    card = Card(model, configs.read(folder / artifact.CONFIG), name=name, source=name)
    drawn = {"picture": card.draw(folder / artifact.PICTURE), "skills": (folder / artifact.SKILLS).is_file()}
    text = merge(read_card(folder / artifact.CARD), card.text(**drawn))
    (folder / artifact.CARD).write_text(text, encoding="utf-8")


def _printable(value: Any) -> Any:
    """A record without nulls, and its text without what would end a block of code or a generated part."""
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return re.sub("<!--|-->|```", "", value) if isinstance(value, str) else value


def _cell(value: Any) -> str:
    """Text on one line, for a table."""
    return " ".join(str(value).split()).replace("|", r"\|")


def _count(tasks: Any) -> str:
    return f"{tasks} task" if tasks == 1 else f"{tasks} tasks"


def _number(value: Any, scale: int = 1, places: int = 3) -> str:
    value = float(value) if isinstance(value, Tensor) else value
    if not isinstance(value, int | float) or math.isnan(value):
        return "·"
    while value < 1 and places < 9 and round(value, places + int(math.log10(scale))) == 1:
        places += 1  # a share that is nearly all is not all
    return f"{round(scale * value, places) + 0.0:.{places}f}"  # + 0.0: no minus sign on a zero
