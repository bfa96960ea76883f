"""`python -m tests.golden.bring_in FILE…`: take recordings (files of one scenario each) into `conversations/`.

The recordings are made with a real API server by the tool that their format belongs to; here they are only laid out
anew. Scenarios that are there already are replaced.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.golden import conversations


def main(files: list[str]) -> int:
    """Returns an exit status."""
    if not files:
        print(__doc__, file=sys.stderr)
        return 2
    conversations.FOLDER.mkdir(exist_ok=True)
    for name in files:
        scenario = json.loads(Path(name).read_text())
        (conversations.FOLDER / f"{scenario['id']}.json").write_text(conversations.dump(scenario))
    print(f"{len(files)} scenarios; there are {len(conversations.names())}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
