"""`python -m tests.simulation`: simulate everything and write docs/simulation.md."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.simulation import report
from tests.simulation.run import Run
from tests.simulation.scenarios import POLICIES, SCENARIOS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "simulation.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--output", type=Path, default=PAGE, metavar="FILE")
    options = parser.parse_args()
    outcomes = []
    for scenario in SCENARIOS:
        for policy in POLICIES:
            began = time.process_time()
            outcomes.append((scenario, policy, Run(scenario, policy).to_end()))
            print(f"{scenario.name}, {policy.name}: {time.process_time() - began:.1f} s of CPU", file=sys.stderr)
    options.output.write_text(report.page(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
