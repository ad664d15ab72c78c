"""What the card of a model says by its type, besides what was measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of model, as its card presents it; the defaults serve a model type that is not in `KINDS`.

    Attributes:
        template: file in ``templates/`` that the card is made from.
        pipeline_tag: the Hub's name for what such a model does, such as ``"image-classification"``.
        tags: under which the Hub lists it.
        task: what it was trained for.
        metric: how that is measured.
        idea: why it forgets little, in words that follow a colon.
        learning: how it learns on, a sentence.
        usage: from the constructor's arguments to lines of Python that follow ``model = dendrite_zoo.load(...)``, where
            the template leaves that open.
        limits: from the constructor's arguments to sentences on what the model cannot do, beside the template's.
    """

    template: str = "classifier.md.j2"
    pipeline_tag: str | None = None
    tags: tuple[str, ...] = ("continual-learning", "active-dendrites")
    task: str = "Continual learning"
    metric: str = "accuracy"
    idea: str = (
        "active dendrites choose which few units\nanswer for each task, so that learning one task leaves the others "
        "intact\n([Iyer et al. 2022](https://arxiv.org/abs/2201.00042))."
    )
    learning: str = (
        "To fine-tune it, give it to `ContinualClassifier` or to any loop of your own; what it knows of its tasks "
        "comes with it."
    )
    usage: Callable[[Arguments], str] = lambda arguments: "print(model)"
    limits: Callable[[Arguments], list[str]] = lambda arguments: []


def kind_of(model_type: str) -> Kind:
    """Give the kind of a model type."""
    return KINDS.get(model_type, Kind())


def _classify(arguments: Arguments) -> str:
    lines = [f"x = torch.rand(8, {arguments['in_features']})  # rows like those it was trained on"]
    if arguments["context"] != "one-hot":
        lines.append("logits = model(x)  # finds the context of each row by itself")
    return "\n".join([*lines, "logits = model(x, task=0)  # takes it as given"])


def _from_sums(arguments: Arguments) -> str:
    shape = arguments["input_shape"]
    sizes = ", ".join(map(str, [shape] if isinstance(shape, int) else shape))
    return f"x = torch.rand(8, {sizes})  # like those it learned\nlogits = model(x)"


def _put_on(arguments: Arguments) -> str:
    lines = ["model.attach(backbone)  # " + (arguments["backbone_name"] or "the network that it was learned on")]
    if arguments["context"] != "given":
        lines.append("logits = model(x)  # finds the task of each input by itself")
    return "\n".join([*lines, "logits = model(x, task=0)  # takes it as given"])


KINDS: dict[str, Kind] = {
    "adapted-backbone": Kind(
        tags=("continual-learning", "active-dendrites", "adapters"),
        idea="each task has gates of its own on the channels\nof a frozen backbone, so that learning one task leaves "
        "the others intact.",
        usage=_put_on,
        limits=lambda arguments: [
            "It has no backbone: "
            + (arguments["backbone_name"] or "a network without a name")
            + " is to be put in, with "
            f"the weights whose sha256 is {arguments['backbone_sha256'][:12]}...",
        ],
    ),
    "active-dendrite-classifier": Kind(
        pipeline_tag="image-classification",
        usage=_classify,
        limits=lambda arguments: [
            f"It has room for {arguments['max_tasks']} tasks; a larger `max_tasks=` at loading makes more."
        ],
    ),
    "ridge-classifier": Kind(
        pipeline_tag="image-classification",
        tags=("continual-learning", "class-incremental-learning"),
        idea="it is solved for from running sums over all rows\nthat it ever saw, so that nothing is trained and "
        "nothing forgotten.",
        learning="To teach it more, call `model.learn(loader)`; its sums come with it. "
        "`dendrite_zoo.load(..., num_classes=...)` makes\nroom for more classes.",
        usage=_from_sums,
        limits=lambda arguments: ["It tells the classes it has seen apart, and gives one of them for any input."],
    ),
    "active-dendrite-policy": Kind(
        template="policy.md.j2",
        pipeline_tag="robotics",
        tags=("robotics", "imitation-learning", "multi-task", "meta-world", "active-dendrites"),
        task="Multi-task robot control",
        metric="success",
    ),
    "active-dendrite-policy of other tasks": Kind(
        template="policy.md.j2",
        pipeline_tag="reinforcement-learning",
        tags=("imitation-learning", "multi-task", "active-dendrites"),
        task="Multi-task control",
        metric="success",
    ),
}
"""``model_type`` to its kind, of policies by their tasks; a model type of one's own may be added."""
