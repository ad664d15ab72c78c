"""The page in a browser without a screen: every chart is drawn, follows dark and phones, and answers to the pointer."""

import html
import json
import re
import shutil
import subprocess

import pytest
import torch

from dendrite_zoo.records import ResultRecord
from dendrite_zoo.report import Run, subnetwork_record, write_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --hide-scrollbars --dump-dom"
)
DARK = "--blink-settings=preferredColorScheme=0"
PHONE = """<body><iframe src="report.html" style="width: 390px; height: 844px; border: 0"></iframe>
<script>onmessage = (event) => { document.body.dataset.found ??= event.data; };</script></body>"""
ASK = """<script>
const tell = (what) => parent.postMessage(JSON.stringify(what), "*");
addEventListener("error", (event) => { tell({ error: String(event.message) }); });
addEventListener("unhandledrejection", (event) => { tell({ error: String(event.reason) }); });
addEventListener("securitypolicyviolation", (event) => { tell({ error: String(event.blockedURI) }); });
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
(async () => {
  const charts = [...document.querySelectorAll(".chart")];
  for (const chart of charts) {
    chart.scrollIntoView();
    while (!("drawn" in chart.dataset)) await wait(20);
  }
  const winners = charts.find((chart) => chart.getAttribute("aria-label").startsWith("Heat map of the units"));
  const isOurs = ({ t, u }) => t === 2 && u === 2;
  const cell = [...winners.querySelectorAll(".mark-rect path")].find((path) => isOurs(path.__data__.datum));
  const { x, y, width, height } = cell.getBoundingClientRect();
  const place = { bubbles: true, clientX: x + width / 2, clientY: y + height / 2 };
  for (const kind of ["pointerover", "mouseover", "pointermove", "mousemove"]) {
    cell.dispatchEvent(kind[0] === "p" ? new PointerEvent(kind, place) : new MouseEvent(kind, place));
  }
  await wait(300);
  const ink = getComputedStyle(document.body).color;
  const label = document.querySelector(".chart .role-axis-label text");
  const bars = charts.find((chart) => chart.getAttribute("aria-label").startsWith("Bars of the share"));
  tell({
    drawn: charts.map((chart) => chart.querySelectorAll("svg path").length > 0),
    width: [document.documentElement.scrollWidth, innerWidth],
    dark: [getComputedStyle(document.body).backgroundColor, getComputedStyle(label).fill === ink],
    chosen: document.querySelector("select[name=chosen]").value,
    said: document.querySelector(".said").textContent,
    tooltip: document.querySelector("#vg-tooltip-element").innerText,
    bars: bars.querySelectorAll(".mark-rect path").length,
    title: bars.querySelector(".role-title-text text").textContent,
  });
})();
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="There is no Chromium. Install it, such as by: apt-get install chromium")
def test_the_page_in_a_browser(tmp_path):
    pytest.importorskip("vl_convert", reason="There is no vl-convert. Install the [report] extra.")
    matrix = [[0.9, 0.1, 0.1], [0.8, 0.9, 0.2], [0.7, 0.8, 0.9]]
    known = {"benchmark": "b", "method": "m", "context_at_test": "given", "tasks": ["reach", "push", "<b>pull"]}
    sparsity, rates = {"hidden": {"dead_units": 0.25}}, torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 1]])
    layers = {"sparsity": sparsity, "subnetworks": subnetwork_record({"hidden": rates})}
    record = ResultRecord.from_run(matrix[-1], seed=0, matrix=matrix, **known, **layers)
    points = [
        (1.0, {"reach": 0.5, "push": 0.0, "<b>pull": 0.0, "mean": 0.25}),
        (2.0, {"reach": 1.0, "mean": 0.5}),
    ]
    run = Run.of_record(record)
    page = write_page([Run(**{**vars(run), "points": points})], tmp_path / "report.html")
    page.write_text(ASK.join(page.read_text().rsplit("</body>", 1)))  # of its own text, not of the library
    (phone := tmp_path / "phone.html").write_text(PHONE)
    for seconds in (20, 100, 500):  # of the browser's own time, which a busy machine may let pass before all is drawn
        own = [f"--virtual-time-budget={seconds * 1000}", f"--user-data-dir={tmp_path / f'browser-{seconds}'}"]
        command = [BROWSER, *QUIET.split(), DARK, *own, phone.as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
        answer = re.search(r'data-found="(.*?)"', dom)
        if answer:
            break
    found = json.loads(html.unescape(answer[1]))
    assert "error" not in found, found["error"]
    assert found["drawn"] == [True] * 8
    assert found["width"] == [390, 390]  # nothing stands out to the side
    assert found["dark"] == ["rgb(20, 23, 27)", True]
    assert found["chosen"] == "2" and found["bars"] == 3 and found["title"] == "task <b>pull"
    assert found["said"].startswith("Task <b>pull: 2 of 4 recorded units are active for at least half")
    assert found["tooltip"].split() == ["task", "<b>pull", "unit", "3", "active", "for", "a", "share", "of", "1.0000"]
