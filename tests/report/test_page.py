"""The page of a run, read as a browser reads it: its numbers are the files' own, and nothing of a file is run."""

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from dendrite_zoo.cli.main import main
from dendrite_zoo.records import ResultRecord, write_records
from dendrite_zoo.report import Run, matrix_record, page_html, read_runs, subnetwork_record, write_record
from dendrite_zoo.report.page import html

NAN = math.nan
R = np.array([[0.9, 0.12, 0.10], [0.95, 0.88, 0.11], [0.97, 0.80, 0.86]])
EVIL = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def _without_library(monkeypatch):
    """The charts' library takes seconds to put together; the browser's test has it."""
    monkeypatch.setattr(html, "_javascript", lambda: "")


class Page(HTMLParser):
    """What a browser would see: tables by their caption, values, scripts, and every attribute that loads something."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.tables, self.values, self.loads, self.text, self.tags = [], {}, {}, [], [], []
        self._inside, self._row, self._title, self._term = [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tags.append((tag, known))
        self.loads += [known[name] for name in ("src", "href", "data", "srcset") if name in known]
        if tag not in ("meta", "link", "img", "br"):
            self._inside.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag == "data" and "value" in known:
            self.values[self._term] = float(known["value"])
        if tag == "h3":
            self._title = ""
        if tag == "dt":
            self._term = ""
        if tag == "tr":
            self._row = []
        if tag in ("td", "th"):
            self._row.append("")

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass
        if tag == "tr":
            self.tables.setdefault(self._title, []).append(self._row)

    def handle_data(self, data):
        tag = self._inside[-1] if self._inside else ""
        if tag == "script":
            self.scripts[-1] += data
        elif tag != "style":
            self.text.append(data)
        if tag == "h3":
            self._title += data
        if tag == "dt":
            self._term += data
        if {"td", "th"} & set(self._inside):
            self._row[-1] += data

    @property
    def said(self):
        return " ".join(" ".join(self.text).split())

    @property
    def charts(self):
        """The charts with the columns that they are drawn from, by their description."""
        parsed = [json.loads(script) for script in self.scripts if script[:1] in ("{", "[")]
        sources = next(one for one in parsed if isinstance(one, list))
        return {one["spec"]["description"]: (one, sources[one["source"]]) for one in parsed if "spec" in one}


def record(**known):
    about = {"benchmark": "b", "method": "m", "context_at_test": "inferred", "matrix": R.tolist()}
    return ResultRecord.from_run(R[-1].tolist(), seed=0, **{**about, **known})


@pytest.fixture
def folder(tmp_path):
    """A run with all that a page shows."""
    run = tmp_path / "run"
    rates = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.25, 0.0], [0.0, 0.0, 1.0, 1.0]])
    sparsity = {"hidden": {"activation_sparsity": 0.8125, "dead_units": 0.03125}}
    write_records([record(sparsity=sparsity, command="dendrite-zoo fit --config x")], run / "results.json")
    write_record(matrix_record(R, [0.1, 0.2, 0.05], metric="val/acc", samples=[10, 10, 10]), run / "matrix.json")
    write_record(subnetwork_record({"model.hidden": rates}), run / "subnetworks.json")
    with open(run / "metrics.csv", "w", newline="") as file:
        rows = [["epoch", "step", "env_steps", "updates", "success/a", "success/mean"]]
        rows += [[0, 9, 100.0, 5, "", ""], [0, 9, "", "", 0.25, 0.25], [1, 19, 200.0, 10, 0.75, 0.75]]
        csv.writer(file).writerows(rows)
    (run / "config.yaml").write_text("seed_everything: 0\n")
    return run


def test_the_numbers_of_the_page_are_those_of_the_files(folder):
    page = Page(page_html(read_runs(folder)))
    by_hand = {
        "average accuracy": R[2].mean(),
        "forgetting": ((0.95 - 0.97) + (0.88 - 0.80)) / 2,
        "backward transfer": ((0.97 - 0.90) + (0.80 - 0.88)) / 2,
        "forward transfer": ((0.12 - 0.2) + (0.11 - 0.05)) / 2,
        "learning accuracy": R.diagonal().mean(),
        "mean accuracy": R[2].mean(),
    }
    assert page.values == pytest.approx(by_hand, abs=1e-9)
    head, untrained, *rows = page.tables["val/acc on each task after each task was learned"]
    assert head == ["after task", "0", "1", "2"] and untrained == ["untrained", ".1000", ".2000", ".0500"]
    assert [[float(cell) for cell in row[1:]] for row in rows] == R.tolist()
    _, *tasks = page.tables["Each task when learned, and now"]
    assert tasks[1] == ["1", ".8800", ".8800", ".8000", ".0800"] and tasks[2][-1] == "·"
    _, *over = page.tables["Forgetting over tasks"]
    assert over == [["0", ".9000", "·"], ["1", ".9150", "-.0500"], ["2", ".8767", ".0300"]]
    _, *layers = page.tables["Sparsity by layer"]
    assert layers == [["hidden", ".8125", ".0312"]]
    _, *curve = page.tables["Success while it was trained"]
    assert curve == [["100", ".2500", ".2500"], ["200", ".7500", ".7500"]]
    assert "dendrite-zoo fit --config x" in page.said and "seed_everything: 0" in page.said


def test_the_charts_are_drawn_from_the_same_numbers(folder):
    charts = Page(page_html(read_runs(folder))).charts
    matrix, cells = next(charts[alt] for alt in charts if alt.startswith("Heat map of val/acc"))
    drawn = {(a, t): v for a, t, v in zip(cells["a"], cells["t"], cells["v"], strict=True)}
    assert [[drawn[a, t] for t in range(3)] for a in range(1, 4)] == R.tolist()
    early = {key for key, one in zip(drawn, cells["early"], strict=True) if one}
    assert early == {(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)}  # row 0 is the untrained model
    winners, units = next(charts[alt] for alt in charts if alt.startswith("Heat map of the units"))
    rates = {(t, unit): v for t, unit, v in zip(units["t"], units["unit"], units["v"], strict=True)}
    assert rates[0, 1] == 0.5 and rates[1, 2] == 0.25 and rates[2, 3] == 1.0 and len(rates) == 12
    order = [unit for t, unit in zip(units["t"], units["unit"], strict=True) if t == 0]
    assert order == [0, 1, 2, 3]  # by the task that each is most active for
    _, pairs = next(charts[alt] for alt in charts if alt.startswith("Bars of the share"))
    shared = {(t, o): v for t, o, v in zip(pairs["t"], pairs["o"], pairs["v"], strict=True)}
    assert shared[0, 1] == pytest.approx((0 + 0.5 * 1.0) / math.sqrt(1.5 * 1.25), abs=1e-4)
    assert winners["said"][0]["1"] == (
        "Task 1: 1 of 4 recorded units are active for at least half of its inputs; it shares most with task 0, .3651."
    )
    assert all(one["spec"]["description"] == alt for alt, (one, _) in charts.items())


def test_nothing_of_a_file_is_run_and_nothing_is_fetched(tmp_path):
    tasks = [EVIL, EVIL + "2", "c"]
    known = {"benchmark": EVIL, "method": EVIL, "command": EVIL, "hardware": EVIL, "model": {EVIL: EVIL}}
    sparsity, layers = {EVIL: {"dead_units": 0.5}}, subnetwork_record({EVIL: torch.eye(3)})
    further = {"tasks": tasks, "metric": EVIL, "sparsity": sparsity, "subnetworks": layers}
    curve = [{"env_steps": 1.0, "updates": 1.0, f"success/{EVIL}": 0.5, "success/mean": 0.5}]
    write_records([record(**known, **further, curve=curve)], tmp_path / EVIL.replace("/", "") / "results.json")
    text = page_html(read_runs(tmp_path / EVIL.replace("/", "")))
    page, plain = Page(text), Page(page_html(read_runs(_plain(tmp_path))))
    count = {tag: sum(one == tag for one, _ in page.tags) for tag in ("script", "img", "iframe", "link", "style")}
    assert count == {"script": 4 + len(page.charts), "img": 0, "iframe": 0, "link": 0, "style": 1}
    assert not [name for _, known in page.tags for name in known if name.startswith("on") and name != "onsubmit"]
    assert not [load for load in page.loads + plain.loads if not load.startswith("#")]
    policy = next(known["content"] for tag, known in page.tags if "http-equiv" in known)
    assert "default-src 'none'" in policy and "http" not in policy
    assert not re.search(r"url\(|@import|https?://", text)
    assert EVIL[:50] in page.said  # as text


def _plain(folder):
    write_records([record()], folder / "plain.json")
    return folder / "plain.json"


def test_what_was_not_measured_is_no_number(tmp_path):
    holes = R.copy()
    holes[0, 1] = holes[2, 0] = NAN
    write_record(matrix_record(holes, metric="val/acc"), tmp_path / "matrix.json")
    page = Page(page_html(read_runs(tmp_path)))
    rows = page.tables["val/acc on each task after each task was learned"]
    assert rows[1] == ["0", ".9000", "·", ".1000"] and rows[3][1] == "·"
    _, cells = next(page.charts[alt] for alt in page.charts if alt.startswith("Heat map of val/acc"))
    assert cells["v"].count(None) == 2 and "forward transfer" not in page.values
    assert "the untrained model was not measured" in page.said
    assert [row[0] for row in page.tables["Forgetting over tasks"][1:]] == ["0", "1"]


def test_less_is_better(tmp_path):
    write_record(matrix_record([[1.5, 9.0], [4.0, 1.0]], metric="val/loss", mode="min"), tmp_path / "matrix.json")
    page = Page(page_html(read_runs(tmp_path)))
    assert page.values["forgetting"] == 2.5 and page.values["average"] == 2.5
    chart, _ = next(page.charts[alt] for alt in page.charts if alt.startswith("Heat map of val/loss"))
    scale = chart["spec"]["layer"][0]["encoding"]["color"]["condition"]["scale"]
    assert scale["domain"] == [1.0, 9.0] and scale["reverse"]


def test_a_run_that_lacks_something_says_what_would_record_it(tmp_path):
    (tmp_path / "config.yaml").write_text("seed_everything: 0\n")
    (tmp_path / "metrics.csv").write_text("step,val/task_0/acc,val/task_1/acc\n1,0.5,\n2,0.75,0.25\n3,0.")
    page = Page(page_html(read_runs(tmp_path)))
    callbacks = ("RunRecorder", "ForgettingLogger", "SubnetworkLogger", "SparsityLogger")
    assert all(name in page.said for name in callbacks) and "SuccessLogger" not in page.said
    assert page.tables["Accuracy while it was trained"][1:3] == [["1", ".5000", "·"], ["2", ".7500", ".2500"]]
    write_records([record()], tmp_path / "results.json")
    whole = Page(page_html(read_runs(tmp_path)))
    assert "RunRecorder" not in whole.said and "ForgettingLogger" not in whole.said


def test_a_thousand_tasks_fit_into_a_page():
    matrix = torch.full((1000, 1000), 0.5, dtype=torch.float64).tril()
    text = page_html([Run(name="run", matrices=[{"R": matrix.where(matrix > 0, NAN), "metric": "val/acc"}])])
    page = Page(text)
    assert len(text) < 2_500_000 and "100 of 1000 tasks are shown" in page.said
    assert len(page.tables["Each task when learned, and now"]) == 1001


def test_a_matrix_in_which_nothing_was_measured_yet():
    page = Page(page_html([Run(name="run", matrices=[{"R": torch.full((3, 3), NAN), "metric": "val/acc"}])]))
    assert not page.values and "nothing was measured yet" in page.said


def test_a_task_may_have_any_name(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,success/x,success/step,success/mean\n5,1.0,0.5,0.75\n9,,0.25,0.25\n")
    page = Page(page_html(read_runs(tmp_path)))
    head, *rows = page.tables["Success while it was trained"]
    assert head == ["step", "mean", "x", "step"]
    assert rows == [["5", ".7500", "1.0000", ".5000"], ["9", ".2500", "·", ".2500"]]


def test_several_runs_stand_below_a_table(tmp_path):
    for seed in (0, 1):
        write_records([record(method=f"m{seed}", matrix=None)], tmp_path / f"{seed}.json")
    page = Page(page_html([run for seed in (0, 1) for run in read_runs(tmp_path / f"{seed}.json")]))
    assert [row[:2] for row in page.tables[""]] == [["method", "tasks"], ["m0", "3"], ["m1", "3"]]
    assert page.loads == ["#run-0", "#run-1"]
    with pytest.raises(ValueError, match="Expected a run at least, but got none"):
        page_html([])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("matrix.json", {"metric": "a"}, "accuracy matrix as a run writes it, but got KeyError"),
        ("matrix.json", {**matrix_record(R), "samples": [1]}, r"of 1 tasks.*but got \(3, 3\), \(3,\)"),
        ("matrix.json", {**matrix_record(R), "mode": "most"}, "mode 'most'"),
        ("matrix.json", {**matrix_record(R), "baseline": [0.5, "0.5", None]}, "is no number"),
        ("subnetworks.json", {"layers": {"a": {"units": 2}}}, "Expected `subnetworks`"),
        ("results.json", {"benchmark": "b"}, "lacks"),
    ],
)
def test_a_file_that_is_none_of_a_run_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_runs(tmp_path)


def test_numbers_of_a_record_that_do_not_belong_together_are_refused(tmp_path):
    layer = {"units": 2, "active_share": 0.5, "overlap": [[1.0]], "win_rates": [[1.0, 0.0], [0.0, 1.0]]}
    (tmp_path / "subnetworks.json").write_text(json.dumps({"layers": {"a": layer}}))
    with pytest.raises(ValueError, match=r"Expected win rates \(T, U\) and overlaps \(T, T\) of layer 'a'"):
        page_html(read_runs(tmp_path))
    (tmp_path / "metrics.csv").write_text("step,val/task_0/acc\n1,much\n")
    with pytest.raises(ValueError, match="hold numbers under their names"):
        read_runs(tmp_path)


def test_the_command_writes_the_page_into_the_run(folder, tmp_path, monkeypatch, capsys):
    main(["report", "--html", str(folder)])
    assert "report.html" in capsys.readouterr().out
    assert Page((folder / "report.html").read_text()).values["forgetting"] == pytest.approx(0.03)
    monkeypatch.chdir(tmp_path)
    main(["report", "--html", "permuted-digits"])
    zoo = json.loads((Path(html.dendrite_zoo.__file__).parent / "model_cards/permuted-digits/results.json").read_text())
    assert Page(Path("report.html").read_text()).values["mean accuracy"] == zoo[-1]["average_accuracy"]
    with pytest.raises(SystemExit, match="holds no result records"):
        main(["report", "--html", "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="holds nothing of a run"):
        main(["report", "--html", "empty"])
