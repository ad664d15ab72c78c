"""Cases of a subject over processes, their counts, and the campaign as a whole."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.campaign.subjects import SUBJECTS
from tests.campaign.verdict import KINDS, ROOT

EXAMPLES = 5  # of each kind, in the record
BAD = ("wrong", "raw", "hang")


def run(subject: str, cases: int, *, first: int = 0, without: Sequence[str] = (), processes: int = 2) -> dict[str, Any]:
    """Run cases of a subject; give how many ended how, with examples of what is bad and of errors.

    Args:
        subject: a key of `SUBJECTS`.
        cases: how many.
        first: the number of the first, from which all of it is drawn.
        without: keys of `CHECKS` that are taken out.
        processes: at a time.
    """
    begun = time.monotonic()
    share = -(-cases // processes)
    ranges = [(start, min(start + share, first + cases)) for start in range(first, first + cases, share)]
    with ThreadPoolExecutor(processes) as pool:
        found = [one for part in pool.map(lambda r: list(_part(subject, *r, without)), ranges) for one in part]
    counts = Counter(one["kind"] for one in found)
    examples = {kind: [one for one in found if one["kind"] == kind][:EXAMPLES] for kind in (*BAD, "refused")}
    return {
        "subject": subject,
        "title": SUBJECTS[subject].title,
        "cases": len(found),
        "counts": {kind: counts[kind] for kind in KINDS},
        "examples": {kind: some for kind, some in examples.items() if some},
        "seconds": round(time.monotonic() - begun),
    }


def bad(result: dict[str, Any]) -> int:
    """How many cases ended in what must never be."""
    return sum(result["counts"][kind] for kind in BAD)


def _part(subject: str, first: int, last: int, without: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Cases in one process; where it ends before they do, the next case hung or killed it, and another goes on."""
    while first < last:
        command = [sys.executable, "-m", "tests.campaign.worker", subject, str(first), str(last), *without]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None and process.stderr is not None
        errors: list[str] = []
        reader = _in_background(process.stderr.read, errors)
        ready = process.stdout.readline().strip() == "ready"
        for text in process.stdout:
            one = json.loads(text)
            yield one
            first = one["case"] + 1
        process.wait()
        reader()
        if not ready:
            raise RuntimeError(f"the cases of {subject} cannot be prepared:\n{''.join(errors)[-3000:]}")
        if first < last:
            said = "".join(errors)[-1500:]
            yield {"case": first, "kind": "hang" if "Timeout (" in said else "raw", "said": said}
            first += 1


def _in_background(read: Callable[[], str], into: list[str]) -> Callable[[], None]:
    """Read what a process says on stderr, lest it wait for us."""
    import threading

    thread = threading.Thread(target=lambda: into.append(read()), daemon=True)
    thread.start()
    return thread.join


def campaign(
    kind: str, subjects: Sequence[str], report: Callable[[dict[str, Any]], None], processes: int = 2
) -> list[dict[str, Any]]:
    """Run subjects with all checks in place; ``kind`` is ``"cases"`` or ``"quick"``."""
    results = []
    for subject in subjects:
        results.append(run(subject, getattr(SUBJECTS[subject], kind), processes=processes))
        report(results[-1])
    return results
