"""How long a user waits for a cluster."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.harness import Figure, median, say
from tests.harness.nanokube import Cluster

ROUNDS = 5


def run() -> list[Figure]:
    """Warm starts: everything installed, no state."""
    whole: list[float] = []
    only: list[float] = []
    with tempfile.TemporaryDirectory() as home:
        made = Cluster("bench-start", Path(home))
        made.nanokube("down")
        for number in range(ROUNDS + 1):
            for times, arguments in ((whole, ("--workers", "3")), (only, ("--only", "apiserver"))):
                started = time.monotonic()
                try:
                    made.nanokube("up", *arguments)
                    if number:  # the first round warms the page cache
                        times.append(time.monotonic() - started)
                finally:
                    made.nanokube("down")
            say(f"start: round {number} of {ROUNDS}")
    return [
        Figure(
            "`up --workers 3` to three Ready nodes", f"{median(whole):.1f} s", "4 s", "8.7 s to the first pod bound"
        ),
        Figure("`up --only apiserver` to /readyz", f"{median(only):.2f} s", "", "2.9 s"),
    ]
