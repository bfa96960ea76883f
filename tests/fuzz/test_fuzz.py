"""Bad input against a real server: ten seconds by hand, two minutes in CI (FUZZ_SECONDS says otherwise).

With CI set the seed is fixed, so that a red run there tells of the change.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

from tests.fuzz.run import Fuzz
from tests.fuzz.target import Target

CI_SEED = 20_260_731


def test_bad_input_is_refused_and_nothing_breaks(tmp_path: Path) -> None:
    in_ci = bool(os.environ.get("CI"))
    seconds = float(os.environ.get("FUZZ_SECONDS") or (120 if in_ci else 10))
    seed = CI_SEED if in_ci else random.randrange(2**32)
    target = Target(tmp_path)
    try:
        target.start()
        report = asyncio.run(Fuzz(target, seed).run(seconds))
    finally:
        code = target.stop()
    assert not report.findings, f"seed {seed}:\n" + "\n".join(report.findings)
    assert code == 0
    assert report.requests > 100 and report.codes[201] > 10
