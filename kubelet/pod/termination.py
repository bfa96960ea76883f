"""The message a container leaves behind: its termination file, or the end of its log. Called by `pod.worker`."""

from __future__ import annotations

from pathlib import Path

from kubelet.records import ContainerRecord

MAX_MESSAGE = 4096
MAX_LOG_BYTES = 2048
MAX_LOG_LINES = 80


def termination_message(record: ContainerRecord) -> str:
    """The text for an ended container, "" when it left none."""
    text = _head(record.termination_path) if record.termination_path else ""
    if not text and record.termination_policy == "FallbackToLogsOnError" and record.exit_code != 0:
        text = log_tail(record.log_path)
    return text


def _head(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_MESSAGE).decode("utf-8", "replace")
    except OSError:
        return ""


def log_tail(path: str) -> str:
    """The last lines of a CRI log without its time and stream columns."""
    try:
        with Path(path).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - MAX_LOG_BYTES * 4, 0))
            lines = file.read().splitlines()
    except OSError:
        return ""
    texts = []
    for line in lines[-MAX_LOG_LINES:]:
        parts = line.split(b" ", 3)
        if len(parts) == 4:
            texts.append(parts[3] + (b"" if parts[2].startswith(b"P") else b"\n"))
    return b"".join(texts)[-MAX_LOG_BYTES:].decode("utf-8", "replace")
