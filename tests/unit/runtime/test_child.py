"""Children, descriptors and orphans."""

from __future__ import annotations

import asyncio
import os

import pytest

from runtime.child import PIPE, Child, read_all
from runtime.fdio import Descriptor
from runtime.orphans import is_dead_in_container


async def test_child_tells_output_and_code() -> None:
    child = Child(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=PIPE, stdout=PIPE, stderr=PIPE)

    async def feed() -> None:
        assert child.stdin is not None
        await child.stdin.write(b"x" * 300_000)
        child.stdin.close()

    async with asyncio.timeout(10):
        out, err, code, _ = await asyncio.gather(
            read_all(child.stdout, 1000), read_all(child.stderr, 1000), child.wait(), feed()
        )
    assert (len(out), err, code) == (1000, b"err\n", 3)
    child.close()


async def test_child_can_be_killed() -> None:
    child = Child(["sleep", "60"])
    assert not child.ended
    await child.finish(10)
    assert child.ended
    assert child.exit_code == 137
    assert not os.path.exists(f"/proc/{child.pid}")


async def test_missing_program_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        Child(["/no/such/program"])


async def test_closed_terminal_is_an_end() -> None:
    master, slave = os.openpty()
    terminal = Descriptor(master)
    os.write(slave, b"x")
    async with asyncio.timeout(10):
        assert await terminal.read() == b"x"
        os.close(slave)
        assert await terminal.read() == b""
    terminal.close()
    terminal.close()


@pytest.mark.parametrize(
    ("status", "dead"),
    [
        pytest.param("State:\tZ (zombie)\nNSpid:\t100\t5\n", True, id="zombie-in-container"),
        pytest.param("State:\tZ (zombie)\nNSpid:\t100\n", False, id="someone-else's-zombie"),
        pytest.param("State:\tS (sleeping)\nNSpid:\t100\t5\n", False, id="alive"),
        pytest.param("", False, id="gone"),
    ],
)
def test_which_dead_are_ours(status: str, dead: bool) -> None:
    assert is_dead_in_container(status) is dead
