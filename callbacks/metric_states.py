"""What each validation loader alone adds to a torchmetrics object that the module uses for several."""

from collections.abc import Mapping

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torchmetrics import Metric

from dendrite_zoo._core.lightning import logged_metrics
from dendrite_zoo._core.ranks import all_gather
from dendrite_zoo._core.torchmetrics import FRESH, States, holds, only_between, states_of, submetrics, was_computed


class MetricStates:
    """Remembers what the metrics of a module hold when each loader of a validation begins.

    Lightning resets a torchmetrics object when a validation ends, not between its loaders: what ``self.log("val/acc",
    self.acc)`` shows of loader ``j`` rests on the samples of loaders 0 to ``j``, and, where the object is used in
    ``training_step`` too, on training batches. Nothing of that is changed here: the value of a loader alone is computed
    by a copy of the object, from the difference of its states.

    Args:
        pl_module: the module, about to be validated.
    """

    def __init__(self, pl_module: LightningModule) -> None:
        self._module = pl_module
        self._began: dict[int, dict[int, States]] = {}  # loader -> id of a metric -> what it held
        self._updated: list[Metric] = []  # before the loader at hand began
        self._computed: dict[int, Metric] = {}  # in a step, with the samples of earlier loaders

    def before_batch(self, loader: int) -> None:
        """A loader may begin."""
        if loader not in self._began:
            self._began[loader] = self._now()
            self._updated = [metric for metric in submetrics(self._module) if metric.update_count]

    def after_batch(self, loader: int, batch_idx: int) -> None:
        """See whether the module itself has reset a metric since the loader began."""
        began = self._began[loader]
        for metric in self._updated:
            known = began[id(metric)]
            first_update = batch_idx == 0 and metric.update_count == known.updates and not holds(metric, known)
            if metric.update_count < known.updates or first_update:
                began[id(metric)] = FRESH
            elif known.updates and was_computed(metric):
                self._computed[id(metric)] = metric

    def mixtures(self, trainer: Trainer) -> list[str]:
        """The metrics that steps computed with the samples of earlier loaders, to log the values, by attribute."""
        logged = {id(metric) for metric, _ in logged_metrics(trainer).values()}
        mixed = self._computed.keys() - logged
        return [name for name, module in self._module.named_modules() if id(module) in mixed]

    def alone(self, trainer: Trainer, keys: Mapping[int, str]) -> dict[int, float]:
        """The values of loaders whose metric also held what others had added; for all others Lightning's are right.

        Every process calls it.

        Args:
            trainer: the Trainer at work.
            keys: task -> key of its value in ``trainer.callback_metrics``.

        Raises:
            ValueError: the states of a metric cannot be told apart.
        """
        logged, now, starts = logged_metrics(trainer), self._now(), list(self._began)
        spans = {}
        for task, key in keys.items():
            if key in logged and starts:
                metric, loader = logged[key]
                later = starts[starts.index(loader) + 1 :] if loader in starts else []
                before = self._began[starts[0] if loader is None else loader]
                spans[task] = metric, before, self._began[later[0]] if later else now
        shared = [
            task
            for task, (metric, before, _) in spans.items()
            if any(before.get(id(part), FRESH).updates for part in submetrics(metric))
        ]
        values = {}
        for task in sorted(set().union(*all_gather(shared))):  # all processes compute together
            metric, before, after = spans[task]
            own = only_between(metric, before, after)
            if own is None:
                raise ValueError(_inseparable(keys[task], type(metric).__name__))
            with isolate_rng():
                values[task] = float(own.compute())
        return values

    def _now(self) -> dict[int, States]:
        return {id(metric): states_of(metric) for metric in submetrics(self._module)}


def _inseparable(key: str, kind: str) -> str:
    return (
        f"ForgettingLogger expected a metric for each validation loader, but {key!r} is logged by one {kind} for "
        "several loaders, or for training too. Lightning resets it after the last one only, so its value contains "
        "those of earlier loaders, and this metric's states cannot be told apart. Use one for each loader: `self.acc "
        f"= nn.ModuleList({kind}(...) for _ in range(tasks))`, and `self.acc[dataloader_idx]` in `validation_step`."
    )
