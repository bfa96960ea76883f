"""Log files of bounded size: nothing is lost, few files stay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from machinery import log_files

WRITER = """
import logging, os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from machinery import log, log_files
log_files.MEBIBYTE = log.MEBIBYTE = 1000
log_files.LOOK_EVERY = 5
log.setup("test", "info", 10)
for number in range(int(sys.argv[2])):
    logging.getLogger("x").info("line %d", number)
    if number % 50 == 0:
        print(f"printed {number}", flush=True)
        os.write(2, b"raw %d\\n" % number)
"""


def run(folder: Path, lines: int) -> list[str]:
    path = folder / "x.log"
    root = str(Path(__file__).parents[3])
    with path.open("ab") as out:
        subprocess.run([sys.executable, "-c", WRITER, root, str(lines)], stdout=out, stderr=out, check=True, timeout=60)
    files = [*(log_files.older(path, number) for number in range(9, 0, -1)), path]
    return [line for file in files if file.exists() for line in file.read_text().splitlines()]


def test_no_line_is_lost(tmp_path: Path) -> None:
    lines = run(tmp_path, 600)
    assert (tmp_path / "x.log.1").exists()
    assert [line.rpartition("line ")[2] for line in lines if "line " in line] == [str(number) for number in range(600)]
    for kind in ("printed", "raw"):
        assert [line for line in lines if line.startswith(kind)] == [f"{kind} {number}" for number in range(0, 600, 50)]


def test_files_are_few_and_small(tmp_path: Path) -> None:
    lines = run(tmp_path, 3000)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2", "x.log.3"]
    assert all(file.stat().st_size < 12_000 for file in tmp_path.iterdir())
    assert lines[-1].endswith("line 2999")


def test_a_file_under_a_program_is_cut_without_loss(tmp_path: Path) -> None:
    from cli.supervised_logs import cut_under

    path = tmp_path / "y.log"
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    with path.open("ab") as out:
        process = subprocess.Popen(["sh", "-c", script], stdout=out)
    cuts = 0
    while process.poll() is None and cuts < 2:
        if path.stat().st_size > 2000:
            try:
                cut_under(process.pid, path)
            except OSError:
                break  # it ended just then
            cuts += 1
    assert process.wait(60) == 0
    files = [*(log_files.older(path, number) for number in (3, 2, 1)), path]
    lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
    assert cuts and lines == [f"line {number}" for number in range(20000)]


def test_without_a_file_nothing_is_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.readlink", lambda _: "/dev/null")
    assert log_files.own_file() is None
