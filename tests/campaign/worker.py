"""A process that runs cases of one subject, a line of JSON for each.

python -m tests.campaign.worker SUBJECT FIRST LAST [CHECK THAT IS TAKEN OUT]

A case that takes longer than it may ends the process, and is found by its missing line; memory is bounded, too.
"""

import faulthandler
import os
import resource
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    subject, first, last, *without = sys.argv[1:]
    from tests.campaign.hub_faults import set_environment

    if subject == "hub":
        set_environment()  # before the client is imported

    import torch

    from tests.campaign.checks import CHECKS
    from tests.campaign.subjects import SUBJECTS
    from tests.campaign.verdict import judge, line

    torch.set_num_threads(1)
    one = SUBJECTS[subject]
    answers = os.fdopen(os.dup(1), "w")  # what the library prints goes elsewhere
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with tempfile.TemporaryDirectory() as folder:
        case = one.prepare(Path(folder))
        for name in without:
            CHECKS[name].take_out()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + one.memory, resource.RLIM_INFINITY))
        print("ready", file=answers, flush=True)
        for number in range(int(first), int(last)):
            faulthandler.dump_traceback_later(one.seconds, exit=True)
            verdict = judge(lambda number=number: case(number), one.names)
            faulthandler.cancel_dump_traceback_later()
            verdict = verdict._replace(said=verdict.said.replace(f"{folder}/", ""))
            print(line(number, verdict), file=answers, flush=True)
