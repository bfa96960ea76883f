"""Sockets that come and go, and plugins that are not taken."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from kubelet.plugins import watcher as watching
from kubelet.plugins.watcher import PluginWatcher, Refused, sockets_in
from machinery.clock import VirtualClock
from tests.harness.csi_driver import FakeDriver

Call = tuple[str, str]


class Handler:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.refuse: list[str] = []
        self.fail_to_leave = 0

    async def register(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        self.calls.append(("register", name))
        if self.refuse:
            raise Refused(self.refuse.pop())

    async def deregister(self, name: str, endpoint: str) -> None:
        self.calls.append(("deregister", name))
        if self.fail_to_leave:
            self.fail_to_leave -= 1
            raise RuntimeError("the API server is away")


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="nk-reg-") as name:  # short: Unix sockets have short names
        yield Path(name)


async def test_a_plugin_is_registered_once_and_leaves_once(folder: Path) -> None:
    handler, driver = Handler(), FakeDriver(folder / "d")
    watcher = PluginWatcher(folder / "r", {"CSIPlugin": handler}, VirtualClock())
    async with driver.serve(folder / "r"):
        for _ in range(3):
            await watcher.look()
    for _ in range(3):
        await watcher.look()
    assert handler.calls == [("register", driver.name), ("deregister", driver.name)]
    assert driver.registered == [(True, "")]


async def test_a_socket_made_anew_is_a_new_plugin(folder: Path) -> None:
    handler, driver = Handler(), FakeDriver(folder / "d")
    watcher = PluginWatcher(folder / "r", {"CSIPlugin": handler}, VirtualClock())
    for _ in range(2):
        async with driver.serve(folder / "r"):
            await watcher.look()
    assert handler.calls == [("register", driver.name), ("deregister", driver.name), ("register", driver.name)]


async def test_a_refused_plugin_is_told_why_and_tried_ever_later(folder: Path) -> None:
    handler, driver, clock = Handler(), FakeDriver(folder / "d"), VirtualClock()
    handler.refuse = ["too old", "too new"]
    watcher = PluginWatcher(folder / "r", {"CSIPlugin": handler}, clock)
    async with driver.serve(folder / "r"):
        for wait in (0.0, 0.4, 0.2, 0.9, 0.2):  # tries at 0, after 0.5, after 1
            await clock.advance(wait)
            await watcher.look()
    assert driver.registered == [(False, "too new"), (False, "too old"), (True, "")]


async def test_plugins_of_other_types_are_refused(folder: Path) -> None:
    driver = FakeDriver(folder / "d")
    async with driver.serve(folder / "r"):
        await PluginWatcher(folder / "r", {}, VirtualClock()).look()
    ((taken, why),) = driver.registered
    assert not taken
    assert why.startswith("no handler registered for plugin type: CSIPlugin at socket /")


async def test_a_leave_that_fails_is_tried_again(folder: Path) -> None:
    handler, driver, clock = Handler(), FakeDriver(folder / "d"), VirtualClock()
    handler.fail_to_leave = 1
    watcher = PluginWatcher(folder / "r", {"CSIPlugin": handler}, clock)
    async with driver.serve(folder / "r"):
        await watcher.look()
    for _ in range(3):
        await watcher.look()
        await clock.advance(0.6)
    assert [call for call, _ in handler.calls] == ["register", "deregister", "deregister"]


async def test_who_comes_back_in_time_does_not_leave(folder: Path) -> None:
    handler, driver, clock = Handler(), FakeDriver(folder / "d"), VirtualClock()
    handler.fail_to_leave = 1
    watcher = PluginWatcher(folder / "r", {"CSIPlugin": handler}, clock)
    async with driver.serve(folder / "r"):
        await watcher.look()
    await watcher.look()
    async with driver.serve(folder / "r"):
        await watcher.look()
        await clock.advance(5)
        await watcher.look()
    assert [call for call, _ in handler.calls] == ["register", "deregister", "register"]


async def test_a_plugin_that_hangs_keeps_nobody_waiting_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "REGISTER_SECONDS", 0.3)
    hanging, other = FakeDriver(folder / "d1"), FakeDriver(folder / "d2", name="other.example.com")

    class Waiting(Handler):
        async def register(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
            await super().register(name, endpoint, versions)
            if name == hanging.name:
                await asyncio.Event().wait()

    handler, clock = Waiting(), VirtualClock()
    watcher = PluginWatcher(folder / "r", {"CSIPlugin": handler}, clock)
    async with hanging.serve(folder / "r" / "a"), other.serve(folder / "r" / "b"), asyncio.timeout(20):
        await watcher.look()
        assert sorted(handler.calls) == sorted([("register", hanging.name), ("register", other.name)])
        await watcher.look()
        assert len(handler.calls) == 2, "it is tried later"
        await clock.advance(0.6)
        await watcher.look()
    assert handler.calls[2:] == [("register", hanging.name)]
    assert (hanging.registered, other.registered) == ([], [(True, "")])


async def test_a_socket_that_nobody_answers_does_no_harm(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "dead.sock"))
    handler = Handler()
    await PluginWatcher(folder, {"CSIPlugin": handler}, VirtualClock()).look()
    assert not handler.calls


def test_only_sockets_count_and_hidden_ones_do_not(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / ".hidden").mkdir()
    (folder / "file.sock").touch()
    for name in ("a.sock", "deep/b.sock", ".c.sock", ".hidden/d.sock"):
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(folder / name))
    assert sorted(sockets_in(folder)) == [str(folder / "a.sock"), str(folder / "deep" / "b.sock")]
    assert sockets_in(folder / "none") == {}
