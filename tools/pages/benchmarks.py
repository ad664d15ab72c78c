"""Tables of what the benchmarks and `make campaign` found."""

import json
from collections.abc import Iterator
from typing import Any

from tools.pages.markdown import RESULTS, ROOT, table


def measured(name: str = "*") -> Iterator[dict[str, Any]]:
    """What a benchmark, or each, has printed."""
    for file in sorted((ROOT / "benchmarks" / "results").glob(f"{name}.json")):
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def found(one: dict[str, Any], value: float) -> str:
    """A value with its quartiles, where there are some."""
    spread = " to ".join(f"{quartile:.3g}" for quartile in one.get("quartiles", ()))
    return f"{value:.3g}" + (f" ({spread})" if spread else "")


def watching_table() -> str:
    """How much longer a batch takes in eval mode where a network is watched, as `SparsityLogger` does."""
    rows = []
    for one in measured("watching"):
        low, high = (f"{100 * (quartile - 1):.0f}" for quartile in one["quartiles"])
        batch = " x ".join(map(str, one["batch"]))
        rows.append([one["network"], batch, f"{100 * (one['value'] - 1):.0f} % ({low} to {high})"])
    return table(["network", "batch", "takes longer by (quartiles)"], rows)


def benchmarks_table() -> str:
    """What was aimed at in each benchmark, and what was found."""
    rows = []
    for one in measured():
        if "limit_percent" in one:
            name, value, target = f"{one['callbacks']}, percent of a fit", one["overhead_percent"], one["limit_percent"]
            asked, met = f"<= {target:g}", value <= target
        elif "target" in one:
            name, value, asked, met = one["name"], one["value"], one["target"], one["met"]
        else:
            continue
        words = asked.replace("<=", "at most").replace(">=", "at least")
        rows.append([one["benchmark"], name, found(one, value), words, "" if met else "**missed**"])
    return table(["benchmark", "ratio of", "found (quartiles)", "aimed at", ""], rows)


def by_hand_table() -> str:
    """What was missed, written by hand for one case: how near one can come."""
    rows = []
    for one in measured():
        if "of" in one:
            value = one.get("value", one.get("overhead_percent"))
            rows.append([one["of"], one.get("does", one.get("callbacks")), found(one, value)])
    return table(["instead of", "by hand", "takes (quartiles)"], rows)


def reliability() -> dict[str, Any]:
    """What `make campaign` counted."""
    file = RESULTS / "reliability.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {"subjects": [], "checks": []}


def reliability_table() -> str:
    """How the cases of each subject ended."""
    kinds = ("right", "refused", "wrong", "raw", "hang")
    rows = [
        [one["title"], str(one["cases"]), *(str(one["counts"][kind]) for kind in kinds)]
        for one in reliability()["subjects"]
    ]
    return table(["", "cases", *kinds], rows)


def checks_table() -> str:
    """How many cases go wrong without a check."""
    counted = reliability()
    whole = {
        one["subject"]: sum(one["counts"][kind] for kind in ("wrong", "raw", "hang")) for one in counted["subjects"]
    }
    rows = [
        [one["what"], one["subject"], str(one["cases"]), f"{whole[one['subject']]} → {one['bad']}"]
        for one in counted["checks"]
    ]
    return table(["check", "subject", "cases", "wrong, raw or hang: with it → without it"], rows)


def errors_list() -> str:
    """An error of each subject."""
    refused = [one["examples"].get("refused", [])[:2] for one in reliability()["subjects"]]
    return "".join(f"- `{one['said']}`\n" for examples in refused for one in examples)
