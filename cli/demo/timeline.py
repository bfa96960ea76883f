"""A story as it happens: one line per step, with the time since the start and since the step before, and the evidence.

Owns the waiting: every step has a deadline, and one that does not come says what was expected and what is seen.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cli.errors import CommandError

POLL = 0.2
WIDTH = 24
HEADER = f"{'SINCE START':>11}  {'SINCE STEP':>10}  {'WHAT':<{WIDTH}}  EVIDENCE"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """`at`: real seconds since the start; `after`: since the step before."""

    what: str
    evidence: str
    at: float
    after: float

    def __str__(self) -> str:
        return f"{f'+{self.at:.1f}s':>11}  {f'+{self.after:.1f}s':>10}  {self.what:<{WIDTH}}  {self.evidence}"


class NotSeen(CommandError):
    """A step did not come in time; the message has what was expected and what is seen."""


@dataclass(frozen=True)
class Look:
    """One look at the cluster: the evidence, when the step has come, or else what is seen instead."""

    evidence: str = ""
    seen: str = ""


class Timeline:
    """Prints steps as they come and remembers them."""

    def __init__(
        self,
        say: Say,
        seconds: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._say = say
        self._clock = seconds
        self._sleep = sleep
        self._start = seconds()
        self.steps: list[Step] = []

    def seconds(self) -> float:
        """Real seconds since the start."""
        return self._clock() - self._start

    def begin(self) -> None:
        self._say(HEADER)

    def note(self, what: str, evidence: str) -> Step:
        """A step that is done."""
        at = self.seconds()
        step = Step(what, " ".join(evidence.split()), at, at - (self.steps[-1].at if self.steps else 0.0))
        self.steps.append(step)
        self._say(str(step))
        return step

    def wait(self, what: str, expected: str, look: Callable[[], Look], timeout: float) -> Step:
        """Look until the step has come; `timeout` is real seconds. Raises NotSeen.

        A look that fails because the API server does not answer for a moment is one that has seen nothing.
        """
        deadline = self.seconds() + timeout
        while True:
            try:
                found = look()
            except (OSError, CommandError) as error:
                found = Look(seen=f"no answer: {error}")
            if found.evidence:
                return self.note(what, found.evidence)
            if self.seconds() >= deadline:
                seen = textwrap.shorten(found.seen or "nothing", 500)
                raise NotSeen(f"{what}: expected {expected} within {timeout:.0f} s; seen: {seen}")
            self._sleep(POLL)

    def as_objects(self) -> list[dict[str, Any]]:
        """The steps as plain data."""
        return [{**asdict(each), "at": round(each.at, 2), "after": round(each.after, 2)} for each in self.steps]
