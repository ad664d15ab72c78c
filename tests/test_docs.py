"""README and docs show code that runs, and numbers that were measured."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import statistics
import types
from dataclasses import replace
from pathlib import Path

import pytest

import dendrite_zoo
from dendrite_zoo.records import ResultRecord
from tools import readme
from tools.pages.figures import FIGURE, figure
from tools.pages.tasks import continual_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rows(page: Path, name: str) -> list[dict[str, str]]:
    """A generated table as a reader sees it."""
    text = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", page.read_text(encoding="utf-8"), re.DOTALL)[1]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_the_generated_parts_are_up_to_date(page: Path) -> None:
    """Whoever changes a record or an example runs ``python -m tools.readme``; what examples print, they test."""
    assert page.read_text(encoding="utf-8") == readme.rendered(page, but_for=["output: fine_tune.py"])


def test_a_figure_is_the_value_at_its_path() -> None:
    """By place, by name, by task; a share as a percentage, as the pages write it."""
    ten = {"method": "mine", "num_tasks": 10, "average_accuracy": 0.81449, "parameters": 1234567}
    five = {"method": "mine", "num_tasks": 5, "tasks": ["push", "reach"], "task_accuracies": [0.25, 0.75]}
    other = {"method": "MLP + SI", "matrix": [[0.9, None], [0.6, 0.8]]}
    records = [ten, five, other]
    assert figure(records, "[0][average_accuracy]:.3f") == "0.814" and figure(ten, "[parameters]:,") == "1,234,567"
    assert figure(records, "[mine, 10 tasks][average_accuracy]:.1%") == "81.4 %"
    assert figure(five, "[task_accuracies][reach]:.2f") == "0.75" and figure(five, "[task_accuracies].mean") == "0.5"
    assert figure(records, "[MLP + SI].forgetting:.2f") == "0.30"
    assert figure(other, ".learning_accuracy:.3f") == "0.850"
    for unknown in ("[mine]", "[ours]", "[1][task_accuracies][mine]"):
        with pytest.raises(KeyError, match="Expected one entry"):
            figure(records, unknown)


def test_a_part_of_an_unknown_name_does_not_stay_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for part in ("<!-- walkres -->\n| old |\n", "Is <!-- results/real-data.json [0] -->< 0.1"):
        page.write_text(f"<!-- walkers -->\n<!-- end -->\n\n{part}<!-- end -->\n")
        with pytest.raises(ValueError, match=r"page\.md to have parts and figures of known names, but got 1 others"):
            readme.rendered(page)


TYPED = {"3.10", "3.14", "4.53", "0.01", "2.5 %", "20 %", "5 %", "95 %", "0.875", "0.80"}
"""Versions, settings, and publications' results that stand in no file."""


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_no_result_is_typed(page: Path) -> None:
    """Each share in prose has the comment that says where it comes from, which must not begin a line of Markdown."""
    text = page.read_text(encoding="utf-8")
    assert not [line for line in text.splitlines() if FIGURE.match(line)]
    prose = re.sub(
        r"```.*?```|`[^`\n]*`|<!--.*?-->|\]\([^)]*\)|^\|.*?$",
        "",
        FIGURE.sub("", readme.PART.sub("", text)),
        flags=re.DOTALL | re.MULTILINE,
    )
    typed = {match[0] for match in re.finditer(r"(?<![\w.])\d*\.\d\d+(?![\w.])|\d+(\.\d+)? ?%", prose)}
    assert typed <= TYPED, "Take it from a file: CONTRIBUTING.md, 'A pretrained model', says how."


def test_a_number_of_the_zoo_is_the_mean_of_its_seeds() -> None:
    """Computed from the JSON by hand: the table's generator is not asked."""
    for row in rows(ROOT / "README.md", "zoo"):
        name = re.search(r"`(.+?)`", row["name"])[1]
        own = json.loads((ROOT / "model_cards" / name / "results.json").read_text(encoding="utf-8"))[0]
        by_seed = own.get("average_accuracy_per_seed") or [statistics.fmean(own["task_accuracies"])]
        shown = row["mean accuracy or success"]
        assert shown.startswith(f"{statistics.fmean(by_seed):.3f}") and len(by_seed) == len(own["seeds"])
        assert f"({len(by_seed)} seed" in shown
        if len(by_seed) > 1:
            assert f"± {statistics.stdev(by_seed):.3f}" in shown


def test_what_watching_costs_is_what_was_measured() -> None:
    lines = (ROOT / "benchmarks" / "results" / "watching.json").read_text(encoding="utf-8").splitlines()
    measured = {one["network"]: one["value"] for one in map(json.loads, lines)}
    shown = rows(ROOT / "docs" / "how-to" / "your-own-pipeline.md", "watching")
    assert {row["network"] for row in shown} == measured.keys()
    for row in shown:
        more = 100 * (measured[row["network"]] - 1)
        low, high = map(float, re.findall(r"-?\d+(?= to |\))", row["takes longer by (quartiles)"]))
        assert low - 2 < more < high + 2


def test_a_number_of_the_continual_table_is_the_last_row_of_a_matrix() -> None:
    shown = {row["method"].strip("*"): row for row in rows(ROOT / "docs" / "results.md", "continual")}
    checked = 0
    for file in sorted((ROOT / "results" / "continual").glob("*.json")):
        for record in json.loads(file.read_text(encoding="utf-8")):
            last = [value for value in record["matrix"][-1] if value is not None]
            cell = shown[record["method"]][f"{record['num_tasks']} tasks"]
            assert len(last) == record["num_tasks"]
            assert float(cell.split()[0]) == pytest.approx(statistics.fmean(last), abs=6e-4), record["method"]
            checked += 1
    assert checked >= 15
    assert "(0.971)" in shown["MLP + SI"]["10 tasks"] and "(0.814)" in shown["active dendrites"]["100 tasks"]


def test_a_number_of_the_mixed_table_is_the_mean_of_its_seeds() -> None:
    shown = {row["network"]: row for row in rows(ROOT / "docs" / "results.md", "multi-task")}
    records = json.loads((ROOT / "results" / "multi-task.json").read_text(encoding="utf-8"))
    assert len(records) == 2 * len(shown) == 10
    for record in records:
        cell = shown[record["method"]][record["benchmark"].split("-")[1]]
        by_seed = record["average_accuracy_per_seed"]
        assert cell.startswith(f"{statistics.fmean(by_seed):.3f} ± {statistics.stdev(by_seed):.3f} (3 seeds")
        assert statistics.fmean(record["task_accuracies"]) == pytest.approx(statistics.fmean(by_seed), abs=1e-9)


def test_a_table_of_records_made_by_hand() -> None:
    """Two numbers of tasks of one method; a spread where there are seeds; published in brackets, ours in bold."""
    own = {"benchmark": "permuted-mnist", "method": "mine", "context_at_test": "inferred", "parameters": 2_600_000}
    ten = ResultRecord(**own, num_tasks=10, average_accuracy=0.9, average_accuracy_std=0.01, seeds=[0, 1])
    more = replace(ten, num_tasks=25, average_accuracy=0.8)
    known = replace(ten, method="XdG", context_at_test="given", seeds=[0], average_accuracy_std=None)
    lines = continual_table([ten, more, known]).splitlines()
    assert "| **mine** | inferred | 2.6 M | 2 | 0.900 ± 0.010 | 0.800 ± 0.010 |  |  |  |  |" in lines
    assert "| XdG | given | 2.6 M | 1 | 0.900 (0.972) | (0.903) | (0.790) | (0.620) |  |  |" in lines
    assert lines.index(next(line for line in lines if "mine" in line)) == 2


def test_the_readme_is_a_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target


def test_a_number_of_the_real_data_table_is_the_mean_over_tasks() -> None:
    shown = {row["method"]: row for row in rows(ROOT / "docs" / "results.md", "real-data")}
    records = json.loads((ROOT / "results" / "real-data.json").read_text(encoding="utf-8"))
    for record in records:
        value = float(shown[record["method"]][record["benchmark"].removeprefix("split-")].split()[0])
        assert value == pytest.approx(statistics.fmean(record["task_accuracies"]), abs=6e-4)
    assert {"mean", "ridge", "naive", "replay"} <= shown.keys()


def public(module: types.ModuleType) -> dict[str, object]:
    """What ``from module import *`` gives, modules left out."""
    names: dict[str, object] = {}
    exec(f"from {module.__name__} import *", names)
    return {name: thing for name, thing in names.items() if name[0] != "_" and not isinstance(thing, types.ModuleType)}


def test_every_public_name_is_documented() -> None:
    """Each package has its page of the API; each name a docstring, as have its methods (ruff asks for those)."""
    packages = [name for name in dendrite_zoo.__all__ if isinstance(getattr(dendrite_zoo, name), types.ModuleType)]
    listed = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8").splitlines()
    missing = []
    for package in [*packages, "tasks"]:
        page = ROOT / "docs" / "api" / f"{package}.md"
        assert "```{public-names} dendrite_zoo." + package in page.read_text(encoding="utf-8")
        assert package in listed
        for name, thing in public(importlib.import_module(f"dendrite_zoo.{package}")).items():
            if (inspect.isclass(thing) or inspect.isroutine(thing)) and not inspect.getdoc(thing):
                missing.append(f"{package}.{name}")
    assert not missing
