"""By which names a metric is logged for each task, and what to say where it is not."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from dendrite_zoo._core.checks import check_choice, wrong_argument
from dendrite_zoo._core.names import nearest

LOADER = r"/dataloader_idx_(\d+)"
PLACE = r"\{task(?::(\d+))?\}"
LOGGED = r"(average|learning)_accuracy|(backward|forward)_transfer|forgetting(/task_\d+)?"  # by a ForgettingLogger
OURS = rf"(.*/)?({LOGGED})|(sparsity|subnetworks)/.*"
PLAYED = "val/success", "val/return"  # by a SuccessLogger
SHOWN = 5  # names in a message
LESS_IS_BETTER = {
    *("loss", "losses", "error", "errors", "err", "mae", "mse", "rmse", "mape", "smape", "perplexity", "ppl", "nll"),
    *("crossentropy", "brier", "ece", "wer", "cer", "fid", "rmsle", "msle", "bpc", "bpb", "hinge", "regret"),
}
MORE_IS_BETTER = {
    *("acc", "accuracy", "accuracies", "success", "f1", "auroc", "auc", "precision", "recall", "iou", "miou"),
    *("jaccard", "dice", "bleu", "r2", "ap", "map", "top1", "top5", "psnr", "ssim", "reward", "score"),
}


class MetricName:
    """The name of a metric, and the keys under which Lightning has its value for each task.

    ``"val/acc"`` stands for ``val/task_{j}/acc``, else ``val/acc/dataloader_idx_{j}`` (``self.log("val/acc", ...)``
    with several loaders), else ``val/acc`` itself, which is the one loader's. Names of your own have a place for the
    task: ``"val_acc_{task}"``, or ``"task_{task:1}/val/acc"`` where they count from 1. Where a name holds one and the
    same task for several loaders, as the one that is trained on, the loader's index is the task.

    Args:
        metric: the name.
        task_names: what stands in the place of the task where that is no number, in the order of the tasks.

    Raises:
        TypeError: ``task_names`` is no list of names.
        ValueError: a ``{...}`` that is neither ``{task}`` nor ``{task:1}``, or more than one; names without a place for
            them, or twice the same.

    Example:
        >>> MetricName("val/acc").keys({"val/task_0/acc": 0.9, "val/task_2/acc": 0.8, "val/acc": 0.5})
        {0: 'val/task_0/acc', 2: 'val/task_2/acc'}
        >>> MetricName("task_{task:1}/val/acc").keys(["task_1/val/acc", "task_2/val/acc"])
        {0: 'task_1/val/acc', 1: 'task_2/val/acc'}
        >>> MetricName("val/{task}/acc", ["mnist", "usps"]).keys(["val/usps/acc", "val/mean/acc"])
        {1: 'val/usps/acc'}
    """

    def __init__(self, metric: str, task_names: Sequence[str] | None = None) -> None:
        if not isinstance(metric, str):
            raise wrong_argument("metric", "the name of a metric that the module logs", metric)
        self.metric = re.sub(LOADER + "$", "", metric)
        parts = re.split(PLACE, self.metric)  # before the place, the number that counting starts from, behind it
        if len(parts) > 3 or set("{}") & {*parts[0], *parts[-1]}:
            expected = "a name with at most one place for the task, `{task}`, or `{task:1}` where tasks count from 1"
            raise wrong_argument("metric", expected, metric)
        self.has_place = len(parts) == 3
        self.first = int(parts[1] or 0) if self.has_place else 0
        words = re.findall("[a-z]+", self.metric.lower())
        self.of_test, self.of_validation = "test" in words, any(word.startswith("val") for word in words)
        stage, slash, name = self.metric.rpartition("/")
        before, behind = (parts[0], parts[2]) if self.has_place else (f"{stage}{slash}task_", f"/{name}")
        self._check_names(task_names)
        self._tasks = {name: number for number, name in enumerate(task_names or ())}
        task = "|".join(map(re.escape, self._tasks)) or r"\d+"
        self._named = re.compile(rf"{re.escape(before)}({task}){re.escape(behind)}(?:{LOADER})?")
        self._by_loader = re.compile(re.escape(self.metric) + LOADER)

    def _check_names(self, task_names: Any) -> None:
        if task_names is None:
            return
        if isinstance(task_names, str) or not all(isinstance(name, str) and name for name in task_names):
            raise TypeError(f"Expected `task_names` to be a list of names, one for each task, but got {task_names!r}.")
        if not task_names or len(set(task_names)) < len(task_names):
            raise wrong_argument("task_names", "a name of its own for each task, in their order", list(task_names))
        if not self.has_place or self.first:
            expected = "a name with a place for them, such as 'val/{task}/acc', where there are `task_names`"
            raise wrong_argument("metric", expected, self.metric)

    @property
    def counts(self) -> bool:
        """Whether names hold the number of the task, and not its name."""
        return not self._tasks

    def loader_of(self, key: str, task: int) -> int | None:
        """The index of the validation loader that a key's value is of; None where that is not known."""
        match = re.search(LOADER + "$", key)
        return int(match[1]) if match else task if self.counts else None

    def keys(self, logged: Iterable[str]) -> dict[int, str]:
        """Task -> key, of the keys that say a task.

        Raises:
            ValueError: a key with a number below that which names count from, or one that says two tasks.
        """
        logged = list(logged)
        named = self._by_name([match for key in logged if (match := self._named.fullmatch(key))])
        if named or self.has_place:
            return named
        return {int(match[1]): match[0] for key in logged if (match := self._by_loader.fullmatch(key))}

    def _by_name(self, matches: list[re.Match[str]]) -> dict[int, str]:
        """By the number in the name, or, where that is one and the same for several loaders, by theirs."""
        named = {self._tasks[match[1]] if self._tasks else int(match[1]) - self.first: match[0] for match in matches}
        if len(named) < len(matches) and all(match[2] for match in matches):
            return {int(match[2]): match[0] for match in matches}
        if len(matches) == 1 and matches[0][2] and int(matches[0][2]) not in named:
            raise ValueError(
                f"Expected a name that says one task, but {matches[0][0]!r} says task {next(iter(named))} and loader "
                f"{matches[0][2]}. Leave the trained task out of the name, or log with `add_dataloader_idx=False`."
            )
        if wrong := next((key for task, key in named.items() if task < 0), None):
            raise ValueError(
                f"Expected names that count tasks from {self.first}, as {self.metric!r} says, but {wrong!r} was "
                "logged. Write `{task}` where they count from 0."
            )
        return named

    @property
    def from_1(self) -> str:
        """The name where the module counts tasks from 1."""
        stage, slash, name = self.metric.rpartition("/")
        return re.sub(PLACE, "{task:1}", self.metric) if self.has_place else f"{stage}{slash}task_{{task:1}}/{name}"

    def names_task(self, key: str) -> bool:
        """Whether a key holds a task that the module counted itself, and not Lightning's index of a loader."""
        return self.counts and self._named.fullmatch(key) is not None

    def not_logged(self, logged: Mapping[str, Any], loaders: int) -> str:
        """The message for a metric that a validation did not log for each task.

        Args:
            logged: what was logged, key -> value.
            loaders: the number of validation loaders.
        """
        expected = f"ForgettingLogger expected a value of {self.metric!r} for each task, but "
        if self.metric in logged:
            return (
                f"{expected}it was logged once for {loaders} validation loaders, so its task is unknown. Call "
                f"self.log({self.metric!r}, ...) in `validation_step`, where Lightning adds the loader's index (a "
                "`CombinedLoader` of batches from all of them has none), or log a value for each task by a name of its "
                f"own, such as {self.from_1.replace('{task:1}', '0')!r}."
            )
        if not logged:
            return (
                f"{expected}nothing was logged by `self.log`. Call self.log({self.metric!r}, ...) in "
                "`validation_step`, with one loader for each task; what goes straight to `self.logger` is not seen."
            )
        names = readable(logged, loaders) or sorted(key for key in logged if not re.fullmatch(OURS, key))
        near = difflib.get_close_matches(self.metric, names, n=SHOWN, cutoff=0)
        shown = near + [name for name in names if name not in near][: SHOWN - len(near)]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        if self.metric in PLAYED and PLAYED[1] in names:
            return (
                f"{expected}only {shown}{more} were logged, for the tasks do not say what success is. Give them "
                "TaskSpec(..., success=...), or use ForgettingLogger('val/return')."
            )
        if self.metric in PLAYED:
            return f"{expected}only {shown}{more} were logged. Give the Trainer a SuccessLogger(), too, which logs it."
        return (
            f"{expected}only {shown}{more} were logged.{nearest(self.metric, readable(logged, loaders))} Pass the "
            f"name of a metric that is logged, or call self.log({self.metric!r}, ...) in `validation_step`, with one "
            "loader for each task. Names of your own have a place for the number of the task: 'val_acc_{task}', or "
            f"'task_{{task:1}}/val/acc' where they count from 1.{self._of_names(logged)}"
        )

    def _of_names(self, logged: Iterable[str]) -> str:
        """What to write where the names that were logged in one place are those of tasks."""
        places = named_places(self.metric, logged) if self.counts else {}
        place, names = max(places.items(), key=lambda item: len(item[1]), default=("", []))
        if len(names) < 2 - self.has_place:
            return ""
        return f" Where {names} are tasks, in the order of training: ForgettingLogger({place!r}, task_names={names})."


def named_places(metric: str, logged: Iterable[str]) -> dict[str, list[str]]:
    """What a metric's name may be with a place for the task, and the names that were logged there.

    Example:
        >>> named_places("val/acc", ["val/mnist/acc", "val/usps/acc", "val/loss", "val/acc_usps"])
        {'val/{task}/acc': ['mnist', 'usps'], 'val/acc_{task}': ['usps']}
    """
    parts = re.split(PLACE, metric)
    ends = [(metric[:cut], metric[cut:]) for cut in range(len(metric) + 1)] if len(parts) == 1 else [tuple(parts[::2])]
    places = dict[str, list[str]]()
    for key in (re.sub(LOADER + "$", "", key) for key in logged):
        for start, end in ends:
            if len(key) <= len(start + end) or not (key.startswith(start) and key.endswith(end)):
                continue
            added = key[len(start) : len(key) - len(end)]
            name = re.fullmatch(r"[/_.-]?(\w[\w. -]*?)[/_.-]?", added)
            if name is None or re.fullmatch(r"(task_)?\d+|step|epoch", name[1]) or (len(ends) > 1 and name[1] == added):
                continue
            place = f"{start}{added.replace(name[1], '{task}', 1)}{end}"
            if name[1] not in places.setdefault(place, []):
                places[place].append(name[1])
    return places


def readable(logged: Iterable[str], loaders: int) -> list[str]:
    """The names by which the user's metrics can be read for each task, out of all keys that were logged.

    Example:
        >>> readable(["val_acc_1", "val_acc_2", "loss/dataloader_idx_0", "loss/dataloader_idx_1", "total"], loaders=2)
        ['loss', 'val_acc_{task:1}']
    """
    names, places = set(), dict[str, set[int]]()
    for key in logged:
        name = re.sub(LOADER + "$", "", key)
        if name != key or (loaders == 1 and not re.search(r"task_\d+/", key)):
            names.add(name)
        for number in re.finditer(r"\d+", name):
            place = f"{name[: number.start()]}{{task}}{name[number.end() :]}"
            places.setdefault(place, set()).add(int(number[0]))
    for place, tasks in places.items():
        if "task_{task}/" in place or len(tasks) > 1:  # one number alone may be any, as that of "top5"
            counted_from_0 = re.sub(r"(?<![^/])task_\{task\}/", "", place)
            names.add(counted_from_0 if 0 in tasks else place.replace("{task}", "{task:1}"))
    return sorted(name for name in names if not re.fullmatch(OURS, name))


def check_mode(metric: str, mode: str) -> None:
    """Warn of a mode that the metric's name contradicts.

    Raises:
        ValueError: neither ``"max"`` nor ``"min"``.
    """
    check_choice(("max", "min"), mode=mode)
    MetricName(metric)
    if (other := better(metric)) not in (None, mode):
        rank_zero_warn(
            f"ForgettingLogger: Expected `mode` to be {other!r}, as the name of {metric!r} says that "
            f"{'less' if other == 'min' else 'more'} is better, but got {mode!r}. Pass `mode={other!r}`, or else every "
            "forgetting has the wrong sign."
        )


def better(metric: str) -> str | None:
    """What a metric's name says of which values are better, ``"max"`` or ``"min"``; None where it does not say.

    Example:
        >>> better("val/cross_entropy_loss"), better("val/Accuracy"), better("valLoss"), better("val/q")
        ('min', 'max', 'min', None)
    """
    camel_case = re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+\d*(?![a-z])", metric)
    words = {word.lower() for word in camel_case + re.findall(r"[A-Za-z]+\d*", metric)}
    words |= {word.rstrip("0123456789") for word in words}
    if words & LESS_IS_BETTER or any(word.endswith(("loss", "error")) for word in words):
        return "min"
    return "max" if words & MORE_IS_BETTER else None
