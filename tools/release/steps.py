"""Steps of a rehearsal: each ends passed, skipped with a reason, or failed with one, and a table says how all went."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class Skipped(Exception):
    """What cannot be done on this machine, and why."""


class Failed(Exception):
    """What is wrong with the release."""


@dataclass
class Report:
    """What became of each step.

    Attributes:
        log: the folder with the output of every command.
        rows: step, how it ended, seconds, and what to know about it.
    """

    log: Path
    rows: list[tuple[str, str, float, str]] = field(default_factory=list)

    def step(self, name: str, work: Callable[[], str]) -> bool:
        """Do one step; later ones are done whatever became of it.

        Args:
            name: of the step.
            work: returns what to know about it, or raises `Skipped` or `Failed`.

        Returns:
            Whether it passed.
        """
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        try:
            ending, note = "passed", work()
        except Skipped as reason:
            ending, note = "skipped", str(reason)
        except Exception as reason:  # the later steps say more
            ending, note = "FAILED", f"{reason}" if isinstance(reason, Failed) else f"{type(reason).__name__}: {reason}"
        self.rows.append((name, ending, time.monotonic() - start, note))
        print(f"  {ending}: {note}", flush=True)
        return ending == "passed"

    @property
    def failed(self) -> bool:
        """Whether any step failed."""
        return any(ending == "FAILED" for _, ending, _, _ in self.rows)

    def table(self) -> str:
        """All steps, a line each."""
        width = max((len(row[0]) for row in self.rows), default=4)
        lines = [f"{'step':{width}}  {'':7} {'seconds':>7}"]
        lines += [f"{name:{width}}  {ending:7} {took:7.0f}  {note}" for name, ending, took, note in self.rows]
        return "\n".join(lines)

    def run(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        limit: int = 1800,
    ) -> str:
        """Run a command, its output in the log; give what it printed.

        Raises:
            Failed: it ended with an error; the last line that it printed, and where the rest is.
        """
        words = [str(word) for word in command]
        file = self.log / f"{len(list(self.log.iterdir())):02}-{_name(words)}.txt"
        with file.open("w", encoding="utf-8") as output:
            output.write(" ".join(words) + "\n\n")
            output.flush()
            how = {"cwd": cwd, "env": environment, "stdout": output, "stderr": subprocess.STDOUT, "timeout": limit}
            try:
                code = subprocess.run(words, **how, check=False).returncode  # type: ignore[call-overload]
            except subprocess.TimeoutExpired:
                raise Failed(f"{_name(words)} took more than {limit} seconds: {file}") from None
        said = file.read_text(encoding="utf-8", errors="replace").partition("\n\n")[2]
        if code:
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
            raise Failed(f"{_name(words)} ended with {code}: {last.strip()} ({file})")
        return said


def _name(words: Sequence[str]) -> str:
    """A short name for a command: its program, and the module or script that it runs."""
    names = [Path(word).stem for word in words[:4] if not word.startswith("-") and "=" not in word and len(word) < 80]
    return "-".join(names[:3])
