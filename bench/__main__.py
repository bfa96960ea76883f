"""`python -m bench [--readme] [NAME …]`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from bench.harness import Figure, say

NAMES = ("start", "api", "watch", "pods", "scheduling", "autoscaling", "cluster_autoscaler", "memory")
README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


def rendered(figures: Sequence[Figure]) -> str:
    """A Markdown table."""
    rows = [f"| {each.what} | {each.value} | {each.target} | {each.real} |" for each in figures]
    return "\n".join(["| what | nanokube | target | real control plane |", "|---|---|---|---|", *rows])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure nanokube on this machine.")
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=f"default: {', '.join(NAMES)}")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    options = parser.parse_args(argv)
    figures: list[Figure] = []
    for name in options.names or NAMES:
        run: Callable[[], list[Figure]] = import_module(f"bench.{name}").run
        say(f"== {name}")
        figures += run()
    table = rendered(figures)
    note = f"\n\n{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}; `./nanokube bench`, medians."
    print(table + note)
    if options.readme:
        head, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{head}{BEGIN}\n{table}{note}\n{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
