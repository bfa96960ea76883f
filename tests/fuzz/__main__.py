"""`python -m tests.fuzz --minutes 60`: fuzz for as long as told, print findings, write a record.

The record is a line of figures and the findings, as docs/fuzz.md keeps them. Exit code 1 when there are findings.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.fuzz.run import Fuzz, Report
from tests.fuzz.target import Target


def record(report: Report, exit_code: int) -> str:
    """Markdown."""
    codes = ", ".join(f"{code}: {count:,}" for code, count in sorted(report.codes.items()))
    first, last = (report.memory[0], report.memory[-1]) if report.memory else (0.0, 0.0)
    lines = [
        f"## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, seed {report.seed}",
        "",
        f"* {report.seconds / 60:.1f} minutes, {report.requests:,} requests, {report.read_back:,} read back; "
        f"slowest answer {report.slowest:.2f} s",
        f"* answers by code (0: noise that was closed): {codes}",
        f"* resident memory after the first round {first:.0f} MiB, most {max(report.memory, default=0.0):.0f}, "
        f"last {last:.0f}; the server ended with code {exit_code}",
        f"* findings: {len(report.findings) or 'none'}",
        *(f"  * `{finding[:1500]}`" for finding in report.findings),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--record", type=Path, help="append the record to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nanokube-fuzz-") as folder:
        target = Target(Path(folder))
        try:
            target.start()
            report = asyncio.run(Fuzz(target, args.seed).run(args.minutes * 60))
        finally:
            code = target.stop()
    if code:
        report.find(f"the server ended with code {code} on SIGTERM")
    text = record(report, code)
    print(text)
    if args.record is not None:
        with args.record.open("a") as out:
            out.write(text)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
