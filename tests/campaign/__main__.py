"""Damage, faults and kills by the thousand, and what the library makes of them: make campaign.

python -m tests.campaign [--quick] [--only SUBJECT ...] [--checks CHECK ...] [--json FILE]

Subjects and checks that are run again take the place of what the record had of them.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from dendrite_zoo._core.environment import hardware, versions
from dendrite_zoo._core.files import write_json
from tests.campaign.checks import CHECKS
from tests.campaign.run import bad, campaign, run
from tests.campaign.subjects import SUBJECTS
from tests.campaign.verdict import ROOT

RECORD = ROOT / "results" / "reliability.json"


def show(result: dict[str, Any]) -> None:
    """Print a subject's counts, and an example of each thing that must never be."""
    counts = ", ".join(f"{count} {kind}" for kind, count in result["counts"].items())
    print(f"{result['subject']}: {result['cases']} cases in {result['seconds']} s: {counts}", flush=True)
    for kind, examples in result["examples"].items():
        if kind != "refused":
            print(f"  {kind}, case {examples[0]['case']}: {examples[0]['said'][:1500]}", flush=True)


def without_checks(names: list[str], few: bool) -> list[dict[str, Any]]:
    """Take each check out in turn; give how many bad cases there were with it and without it."""
    rows = []
    for name in names:
        check = CHECKS[name]
        subject = SUBJECTS[check.subject]
        cases = subject.few // 4 if few else check.cases or subject.few
        result = run(check.subject, cases, without=[name])
        rows.append({"check": name, "what": check.what, "subject": check.subject, "cases": cases, "bad": bad(result)})
        print(f"without {name}: {rows[-1]['bad']} of {cases} {check.subject}", result["counts"], flush=True)
    return rows


def merged(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """A record in which subjects and checks that were not run again stand as they were."""
    if path.is_file():
        before = json.loads(path.read_text())
        for part, key, order in (("subjects", "subject", SUBJECTS), ("checks", "check", CHECKS)):
            rows = {row[key]: row for row in [*before[part], *record[part]]}
            record[part] = [rows[name] for name in order if name in rows]
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few cases of each subject, and no check taken out")
    parser.add_argument("--only", nargs="*", choices=SUBJECTS, default=[*SUBJECTS], help="subjects (default: all)")
    parser.add_argument("--checks", nargs="*", choices=CHECKS, help="checks to take out (default: all)")
    parser.add_argument("--json", type=Path, help=f"where to write (default: {RECORD.name}, unless --quick)")
    given = parser.parse_args()
    results = campaign("quick" if given.quick else "cases", given.only, show)
    names = given.checks if given.checks is not None else [] if given.quick else [*CHECKS]
    checks = without_checks(names, given.quick)
    path = given.json or (None if given.quick else RECORD)
    if path is not None:
        record = {"command": "make campaign", "subjects": results, "checks": checks}
        record |= {"versions": versions(), "hardware": hardware()}
        write_json(path, json.loads(json.dumps(merged(path, record))))
    faults = sum(map(bad, results))
    idle = [row["check"] for row in checks if not row["bad"]]
    print(f"{faults} wrong, raw or hanging; {len(checks) - len(idle)} of {len(checks)} checks matter {idle or ''}")
    raise SystemExit(bool(faults or idle))


if __name__ == "__main__":
    main()
