"""The kernel's side of the proxy: nftables by `nft -f`, one transaction per call.

The real dataplane runs the program because libnftables in process costs 60 MiB; a call is 10-35 ms. `FakeDataplane`
keeps the texts it was given; both pass one contract suite.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from typing import Protocol

TIMEOUT = 30.0  # real seconds; a full load of 1,000 Services takes well under one


class DataplaneError(Exception):
    """The kernel refused a transaction; nothing of it was applied."""


class Dataplane(Protocol):
    """What the reconciler needs of the kernel."""

    async def apply(self, text: str) -> None:
        """Apply one transaction, all or nothing. Raises DataplaneError."""

    async def forget_udp(self, flows: list[tuple[str, int, str]]) -> None:
        """Drop connection tracking of UDP flows (service ip, port, endpoint ip); best effort."""


async def _run(argv: list[str], text: str = "") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            _, errors = await process.communicate(text.encode())
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process.returncode or 0, errors.decode(errors="replace")


class NftDataplane:
    """nftables in the network namespace of this process."""

    async def apply(self, text: str) -> None:
        try:
            code, errors = await _run(["nft", "-f", "-"], text)
        except (OSError, TimeoutError) as error:
            raise DataplaneError(f"nft: {error or 'took too long'}") from error
        if code != 0:
            raise DataplaneError(errors.strip()[:2000])

    async def forget_udp(self, flows: list[tuple[str, int, str]]) -> None:
        for ip, port, endpoint in flows:
            argv = ["conntrack", "-D", "-p", "udp", "--orig-dst", ip, "--dport", str(port), "--dst-nat", endpoint]
            with contextlib.suppress(OSError, TimeoutError):  # exit code 1 only says that there was no such flow
                await _run(argv)


class FakeDataplane:
    """Keeps every transaction; `fail_next` makes one fail."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.forgotten: list[tuple[str, int, str]] = []
        self.fail_next = False

    async def apply(self, text: str) -> None:
        if self.fail_next:
            self.fail_next = False
            raise DataplaneError("told to fail")
        self.applied.append(text)

    async def forget_udp(self, flows: list[tuple[str, int, str]]) -> None:
        self.forgotten += flows


def delete_table(table: str) -> None:
    """Remove a table from the namespace of this process, blocking; nothing there is fine."""
    with contextlib.suppress(FileNotFoundError):  # without nft there is no table
        subprocess.run(
            ["nft", "-f", "-"],
            input=f"table ip {table} {{}}\ndelete table ip {table}\n",
            text=True,
            timeout=TIMEOUT,
            check=False,
            capture_output=True,
        )
