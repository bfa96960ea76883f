"""Child processes started by vfork and awaited by pidfd.

The event loop's own subprocesses are started by a plain fork of this process, which copies its page tables: 3 ms and
more that stop the loop, against 0.4 ms here. Owns the child's pipes and its reaping. Called by
conmon launches and exec.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from runtime.fdio import CHUNK, Descriptor

PIPE, NULL = subprocess.PIPE, subprocess.DEVNULL


class Child:
    """A running child. `wait` must be reached in the end, or the child stays a zombie."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: int = NULL,
        stdout: int = NULL,
        stderr: int = NULL,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        new_session: bool = False,
        folder: str | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            pass_fds=pass_fds,
            start_new_session=new_session,
            cwd=folder,
            bufsize=0,
        )
        self.pid = self._process.pid
        self.stdin = self._take(self._process.stdin)
        self.stdout = self._take(self._process.stdout)
        self.stderr = self._take(self._process.stderr)
        self._pidfd = os.pidfd_open(self.pid)
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @staticmethod
    def _take(file: object) -> Descriptor | None:
        if file is None:
            return None
        fd = os.dup(file.fileno())  # type: ignore[attr-defined]
        os.set_inheritable(fd, False)
        file.close()  # type: ignore[attr-defined]
        return Descriptor(fd)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()  # it has ended: this only collects it
        self._ended.set()

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    @property
    def exit_code(self) -> int:
        """How it ended, as a shell would tell it."""
        code = self._process.returncode or 0
        return code if code >= 0 else 128 - code

    async def wait(self) -> int:
        """Wait for the end; the exit code."""
        await self._ended.wait()
        return self.exit_code

    def kill(self) -> None:
        """SIGKILL it, if it runs."""
        if not self.ended:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def finish(self, timeout: float) -> None:
        """Kill it, wait boundedly, close its pipes."""
        self.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.wait()
        self.close()

    def close(self) -> None:
        """Close its pipes."""
        for each in (self.stdin, self.stdout, self.stderr):
            if each is not None:
                each.close()


async def read_all(source: Descriptor | None, limit: int) -> bytes:
    """Up to `limit` bytes; the rest is read and dropped so that the writer is not blocked."""
    kept: list[bytes] = []
    size = 0
    while source is not None and (piece := await source.read(CHUNK)):
        if size < limit:
            kept.append(piece[: limit - size])
            size += len(kept[-1])
    return b"".join(kept)
