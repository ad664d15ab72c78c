"""A few cases of the campaign, so that it runs when it is wanted; `make campaign` runs them by the thousand."""

import logging
from collections import Counter

import pytest

from tests.campaign.checks import CHECKS
from tests.campaign.mutate import change, damage
from tests.campaign.subjects import SUBJECTS
from tests.campaign.verdict import Wrong, judge

CASES = {"configs": 40, "weights": 40, "results": 4, "readmes": 4}


def counted(subject, folder, numbers):
    case = SUBJECTS[subject].prepare(folder)
    verdicts = [judge(lambda number=number: case(number), SUBJECTS[subject].names) for number in numbers]
    return Counter(verdict.kind for verdict in verdicts), verdicts


@pytest.fixture(autouse=True)
def loggers():
    """The campaign's processes keep what is logged to themselves; here it is given back."""
    logger = logging.getLogger("dendrite_zoo")
    before = logger.handlers, logger.propagate
    yield
    logger.handlers, logger.propagate = before


@pytest.mark.parametrize("subject", CASES)
def test_nothing_wrong_nothing_raw(subject, tmp_path):
    counts, verdicts = counted(subject, tmp_path, range(CASES[subject]))
    assert counts["wrong"] == counts["raw"] == 0, verdicts
    assert counts["right"] + counts["refused"] == CASES[subject]


def test_without_a_check_the_counts_rise(tmp_path, monkeypatch):
    monkeypatch.setattr("dendrite_zoo.hub.artifact.verify", lambda *args: None)
    assert counted("weights", tmp_path, range(20))[0]["wrong"] > 3
    monkeypatch.undo()
    monkeypatch.setattr("dendrite_zoo.hub.reading.compare", lambda *args, **kwargs: None)
    assert counted("weights", tmp_path, range(150))[0]["raw"] > 0


def test_there_are_twenty_checks_and_each_leads_somewhere():
    assert len(CHECKS) >= 20 and {check.subject for check in CHECKS.values()} <= set(SUBJECTS)
    for check in CHECKS.values():
        before = {place: check.stands_at(place) for place in check.places}
        assert all(before[place] is not check.places[place] for place in check.places)


def ours():
    from dendrite_zoo.hub.config import parse

    parse("[1]", "config.json: `field`")


def theirs():
    {}["config.json: `field`"]


def silent():
    raise Wrong("other weights")


@pytest.mark.parametrize(("case", "kind"), [(ours, "refused"), (theirs, "raw"), (silent, "wrong"), (int, "right")])
def test_a_verdict_is_by_where_an_error_was_raised(case, kind):
    assert judge(case, ["config.json"]).kind == kind
    assert judge(case, ["another file"]).kind == ("raw" if kind == "refused" else kind)


def test_damage_is_drawn_from_its_number_alone():
    import random

    value = {"a": [1, 2, {"b": "c"}], "d": None}
    for number in range(50):
        assert repr(change(value, random.Random(number))) == repr(change(value, random.Random(number)))
        assert damage(b"some bytes", random.Random(number)) == damage(b"some bytes", random.Random(number))
    assert value == {"a": [1, 2, {"b": "c"}], "d": None}
