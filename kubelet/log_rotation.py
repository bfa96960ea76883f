"""Keeps container logs small: 10 Mi a file, five files, looked at every ten seconds. Run by `kubelet.app`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from kubelet.cri import Cri, CriError
from kubelet.pod.worker import PodWorker
from kubelet.server.logs import log_files
from machinery import log
from machinery.clock import Clock
from machinery.log import kv

_log = log.get(__name__)
MAX_BYTES = 10 * 1024 * 1024
MAX_FILES = 5
CHECK_SECONDS = 10.0


def rotated_name(path: Path, now: datetime) -> Path:
    """`0.log` becomes `0.log.20260101-000000`."""
    return path.with_name(f"{path.name}.{now.strftime('%Y%m%d-%H%M%S')}")


def plan_removal(files: Iterable[Path], keep: int) -> list[Path]:
    """Which of a log's files (oldest first, the live one last) go so that `keep` stay."""
    names = list(files)
    return names[: max(len(names) - keep, 0)]


class LogRotation:
    """One per kubelet."""

    def __init__(
        self,
        runtime: Cri,
        clock: Clock,
        workers: Callable[[], list[PodWorker]],
        *,
        max_bytes: int = MAX_BYTES,
        max_files: int = MAX_FILES,
    ) -> None:
        self._cri = runtime
        self._clock = clock
        self._workers = workers
        self._max_bytes = max_bytes
        self._max_files = max_files

    async def run(self) -> None:
        """Look forever."""
        while True:
            await self._clock.sleep(CHECK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Rotate what has grown too large."""
        for worker in self._workers():
            for slot in worker.machine.slots.values():
                record = slot.current
                if record is None or not record.running or not record.log_path:
                    continue
                path = Path(record.log_path)
                try:
                    if path.stat().st_size >= self._max_bytes:
                        await self._rotate(path, record.id)
                except (OSError, CriError) as error:
                    _log.warning("Failed to rotate log", extra=kv(path=path, error=error))

    async def _rotate(self, path: Path, container_id: str) -> None:
        rotated = rotated_name(path, self._clock.now())
        if rotated.exists():
            return  # twice in a second: the next look will do
        path.rename(rotated)
        try:
            await self._cri.reopen_log(container_id)
        except CriError:
            if not path.exists():
                rotated.rename(path)  # the container still writes to it
            raise
        for old in plan_removal(log_files(path), self._max_files):
            old.unlink(missing_ok=True)
