"""Reading and writing raw descriptors (terminals, packet sockets) on the event loop.

One reader and one writer per descriptor at a time. Called by the stream server.
"""

from __future__ import annotations

import asyncio
import errno
import os

CHUNK = 65536


class Descriptor:
    """A non-blocking descriptor that it owns and closes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_blocking(fd, False)

    async def read(self, size: int = CHUNK) -> bytes:
        """What is there next; empty at the end. A terminal whose other side is closed ends, too."""
        while True:
            try:
                return os.read(self.fd, size)
            except BlockingIOError:
                await self._ready(reading=True)
            except OSError as error:
                if error.errno in (errno.EIO, errno.ECONNRESET):
                    return b""
                raise

    async def write(self, data: bytes) -> None:
        """Write everything. Raises OSError when the other side is gone."""
        view = memoryview(data)
        while view:
            try:
                written = os.write(self.fd, view)
            except BlockingIOError:
                await self._ready(reading=False)
                continue
            view = view[written:]

    async def _ready(self, *, reading: bool) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        if reading:
            loop.add_reader(self.fd, ready.set)
        else:
            loop.add_writer(self.fd, ready.set)
        try:
            await ready.wait()
        finally:
            if reading:
                loop.remove_reader(self.fd)
            else:
                loop.remove_writer(self.fd)

    def close(self) -> None:
        """Close it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
