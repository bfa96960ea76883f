"""The file: rotation loses nothing, backups are few, a full disk harms nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apiserver.audit import log as audit_log
from apiserver.audit.log import AuditLog


def lines_of(folder: Path) -> list[bytes]:
    files = [*sorted(folder.glob("audit-*.log")), folder / "audit.log"]
    return [line for file in files for line in file.read_bytes().splitlines()]


async def test_rotation_keeps_every_line_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MEBIBYTE", 1000)
    log = AuditLog(str(tmp_path / "audit.log"), max_size=1)
    wanted = [b"line %04d " % number + b"x" * (number % 90) for number in range(500)]
    for number, line in enumerate(wanted):
        log.write(line)
        if number % 7 == 0:
            log.flush()
    log.close()
    assert lines_of(tmp_path) == wanted
    assert len(log.backups()) > 10
    assert all(file.stat().st_size <= 1000 for file in tmp_path.iterdir())


async def test_few_and_young_backups_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MEBIBYTE", 100)
    old = datetime.now(UTC) - timedelta(days=9)
    (tmp_path / f"audit-{old.strftime('%Y-%m-%dT%H-%M-%S')}.000.log").write_text("old\n")
    (tmp_path / "audit-notes.log").write_text("not ours\n")
    log = AuditLog(str(tmp_path / "audit.log"), max_size=1, max_backup=3, max_age=2)
    for number in range(40):
        log.write(b"%090d" % number)
    log.close()
    assert len(log.backups()) == 3
    assert (tmp_path / "audit-notes.log").exists()
    assert lines_of(tmp_path)[-1] == b"%090d" % 39


async def test_a_line_longer_than_a_file_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MEBIBYTE", 100)
    log = AuditLog(str(tmp_path / "audit.log"), max_size=1)
    for size in (10, 500, 10):
        log.write(b"y" * size)
    log.close()
    assert [len(line) for line in lines_of(tmp_path)] == [10, 500, 10]


async def test_a_full_disk_is_counted() -> None:
    log = AuditLog("/dev/full", max_size=0)
    log.write(b"a")
    log.write(b"b")
    log.flush()
    assert log.lost == 2
    log.close()


async def test_a_file_that_cannot_be_changed_costs_lines_and_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "MEBIBYTE", 10)
    folder = tmp_path / "logs"
    log = AuditLog(str(folder / "audit.log"), max_size=1)
    log.write(b"first line")
    log.flush()
    folder.rename(tmp_path / "away")
    folder.write_text("somebody's file\n")
    log.write(b"lost")
    log.flush()
    assert log.lost == 1
    folder.unlink()
    log.write(b"second line")
    log.close()
    assert (folder / "audit.log").read_bytes() == b"second line\n"
