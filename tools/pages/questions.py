"""The table of dendrites beside what they were compared with."""

from collections.abc import Sequence

from dendrite_zoo.records import ResultRecord, read_records
from tools.pages.markdown import RESULTS, mean, seeds, table


def record_of(file: str, method: str, benchmark: str = "") -> ResultRecord:
    """The record of a method; of several contexts at test, one that was not given."""
    records = read_records(RESULTS / f"{file}.json")
    found = [one for one in records if one.method == method and one.benchmark.startswith(benchmark)]
    return min(found, key=lambda one: one.context_at_test == "given")


def when_table() -> str:
    """Dendrites beside what they were compared with, question by question."""
    dense, digits = "dense MLP of equal parameters", "active dendrites, winners by activation"
    distilled = "distilled from scripted experts"
    skills = "active dendrites, winners chosen by the context, synaptic intelligence"
    robots, mixed, backbone = "metaworld/continual-5", "multi-task", "backbone-sequence"
    domains = "dendrites, ridge", "dendrites, prototypes", "replay", "ridge"
    compared: dict[str, Sequence[tuple[str, ...]]] = {
        "permutations of MNIST, one after another": (
            ("continual/permuted-mnist-10-ours-small", "ours, width 334, 30 % active"),
            ("continual/permuted-mnist-10-mlp", "MLP"),
        ),
        "robot skills, one after another": ((robots, skills), (robots, dense)),
        "digits that each task calls by other numbers, at once": (
            (mixed, digits, "mixed-relabelled"),
            (mixed, "MLP, the task as an input", "mixed-relabelled"),
            (mixed, "MLP, the task added to each layer", "mixed-relabelled"),
        ),
        "permuted digits, at once": (
            (mixed, digits, "mixed-permuted"),
            (mixed, "MLP without the task", "mixed-permuted"),
        ),
        "robot skills, at once": (
            ("metaworld/mt10", f"active dendrites, {distilled}"),
            ("metaworld/mt10", f"{dense}, {distilled}"),
        ),
        "turned clothes, with a context a domain": [("real-data", method, "rotated") for method in domains],
        "blurred clothes, with a context a domain or a shared one": [
            ("real-data", method, "blurred") for method in domains
        ],
        "data sets on a frozen backbone": ((backbone, "gates, then ridge"), (backbone, "ridge alone")),
    }
    rows = []
    for question, cases in compared.items():
        ours, *controls = (record_of(*case) for case in cases)
        beside = "; ".join(f"{one.method}: {mean(one)} ({seeds(one)})" for one in controls)
        rows.append([f"{question} ({ours.num_tasks} tasks)", f"{ours.method}: {mean(ours)} ({seeds(ours)})", beside])
    return table(["question", "dendrites", "beside them"], rows)
