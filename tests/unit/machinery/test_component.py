"""What every component process is like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHILD = """
import os, pathlib, sys
from machinery import component

async def main(context):
    pathlib.Path(sys.argv[1]).write_text("x")

os.umask(0o077)
sys.exit(component.run("test", component.parser("test", "").parse_args([]), main))
"""


def test_a_strict_umask_does_not_hide_files_from_containers(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "hosts")], check=True, timeout=60)
    assert (tmp_path / "hosts").stat().st_mode & 0o777 == 0o644
