"""The rehearsal of a release: what its parts say, without building or installing anything."""

import json
import sys
import zipfile

import pytest

from tools.release import __main__ as rehearsal
from tools.release import environments, hub
from tools.release.steps import Failed, Report, Skipped

METADATA = """Metadata-Version: 2.4
Name: zoo
Requires-Dist: torch<3,>=2.6
Requires-Dist: numpy<3,>=1.26
Requires-Dist: pyarrow>=16; extra == "mnist"
Requires-Dist: mujoco==3.3.0; python_version < "3.14" and extra == "metaworld"
Requires-Dist: onnx>=1.17; extra == "export"
Requires-Dist: dendrite-zoo[mnist,report]; extra == "all"
"""


def refuse(kind, words):
    raise kind(words)


def test_steps_go_on_after_one_that_fails(tmp_path):
    report = Report(tmp_path)
    assert report.step("one", lambda: "well")
    assert not report.step("two", lambda: refuse(Skipped, "no network"))
    assert not report.failed
    assert not report.step("three", lambda: refuse(Failed, "a wrong number"))
    assert not report.step("four", lambda: refuse(TypeError, "a fault of the tool"))
    assert report.failed and [row[1] for row in report.rows] == ["passed", "skipped", "FAILED", "FAILED"]
    assert [line.split("  ")[0] for line in report.table().splitlines()[1:]] == ["one", "two", "three", "four"]
    assert "TypeError: a fault of the tool" in report.table()


def test_a_command_that_fails_says_its_last_line_and_where_the_rest_is(tmp_path):
    report = Report(tmp_path)
    assert report.run(sys.executable, "-c", "print('a'); print('b')") == "a\nb\n"
    with pytest.raises(Failed, match=r"ended with 3: the reason \(.*01-"):
        report.run(sys.executable, "-c", "print('before'); print('the reason'); raise SystemExit(3)")


def test_the_floors_of_a_wheel_are_its_direct_dependencies_but_for_torch(tmp_path):
    wheel = tmp_path / "zoo.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("zoo-1.dist-info/METADATA", METADATA)
    mujoco = 'mujoco==3.3.0; python_version < "3.14"'
    assert environments.floors(wheel, "mnist,metaworld") == ["numpy<3,>=1.26", "pyarrow>=16", mujoco]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch brings no CUDA")
@pytest.mark.parametrize("needs, brings", [(["filelock", "nvidia-cudnn-cu13==9; x"], True), (["filelock"], False)])
def test_a_torch_that_brings_cuda_is_known_before_it_is_downloaded(needs, brings):
    report = json.dumps({"install": [{"metadata": {"name": "torch", "requires_dist": needs}}]})
    assert environments.only_with_cuda(report) is brings


def test_this_python_is_found_and_one_that_never_was_is_not():
    assert environments.interpreter("{}.{}".format(*sys.version_info)) is not None
    assert environments.interpreter("3.1") is None


@pytest.mark.parametrize("several", [False, True], ids=["one seed", "several"])
def test_goals_are_compared_one_by_one(several):
    record = [[5, -1, 7], [-1, -1, 3]]
    own = {"tasks": ["a", "b"], "first_success": [record, record[::-1]] if several else record}
    measured = {"tasks": ["a", "b"], "num_goals": 2, "first_success": [[6, -1], [-1, 4]]}
    assert hub._goals(measured, own) == "2 of 4 goals reached, 1 of them otherwise than results.json says"
    with pytest.raises(Failed, match="3 of 4 goals end in another way"):
        hub._goals({**measured, "first_success": [[-1, 9], [-1, 4]]}, own)


def test_accuracies_are_those_of_the_seed_that_is_shipped():
    own = {
        "context_at_test": "inferred",
        "num_tasks": 2,
        "average_accuracy": 0.5,
        "average_accuracy_per_seed": [0.9, 0.1],
    }
    assert "0.9010, as results.json says (0.9000)" in hub._accuracy({"inferred": [0.902, 0.9]}, own)
    with pytest.raises(Failed, match="0.5000 over 2 tasks, but results.json says 0.9000"):
        hub._accuracy({"inferred": [0.5, 0.5]}, own)
    with pytest.raises(Failed, match="over 1 tasks"):
        hub._accuracy({"inferred": [0.9]}, own)


def test_the_page_names_every_repo_and_the_version():
    page = rehearsal.what_to_do("lab")
    assert all(f"`lab/{name}`" in page for name in hub.with_weights())
    assert "git push origin v0." in page and not {"ORG", "VERSION"} & set(page.split())
