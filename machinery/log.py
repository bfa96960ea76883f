"""Structured logs: one line per fact, in the past tense, naming the object's kind and key.

`log.info("Bound pod", extra=kv(pod="default/web-0", node="worker-1"))` prints
`I1121 08:34:10.123456 scheduler] Bound pod pod="default/web-0" node="worker-1"` on standard error.
Shared libraries raise; only the top of a loop logs.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from machinery.log_files import MEBIBYTE, BoundedHandler

LEVELS = ("debug", "info", "warning", "error")
_KEY = "kv_pairs"


def kv(**pairs: Any) -> dict[str, dict[str, Any]]:
    """Key-value pairs for the `extra=` of a log call."""
    return {_KEY: pairs}


def get(name: str) -> logging.Logger:
    """The logger of a module (`get(__name__)`)."""
    return logging.getLogger(name)


class KeyValueFormatter(logging.Formatter):
    """Level letter, month-day, time, component, message, pairs; a traceback follows when there is one."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        stamp = self.formatTime(record, "%m%d %H:%M:%S")
        micros = int(record.created % 1 * 1e6)
        line = f"{record.levelname[0]}{stamp}.{micros:06d} {self._component}] {record.getMessage()}"
        pairs: dict[str, Any] = getattr(record, _KEY, {})
        line += "".join(f' {key}="{value}"' for key, value in pairs.items())
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def setup(component: str, level: str = "info", max_size: int = 0) -> None:
    """Send all logs of this process to standard error. Called once, by `machinery.component.run`.

    `max_size` in MiB: standard error is a file of ours, which is rotated; 0: it is somebody else's business.
    """
    handler = BoundedHandler(max_size * MEBIBYTE) if max_size else logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter(component))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("asyncio", "grpc", "uvicorn", "websockets"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
