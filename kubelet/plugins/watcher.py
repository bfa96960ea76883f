"""Watches the registry folder: every socket in it is a plugin that wants to be known (pluginregistration v1).

Owns who is registered and when to try again. What a plugin is good for is its handler's business, by type. A socket
that is made anew is a new plugin; one that is gone has left. Run by `kubelet.app`.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kubelet.backoff import Backoff
from machinery import grpc as transport
from machinery import log
from machinery.clock import Clock
from machinery.log import kv
from proto.pluginregistration.v1 import pluginregistration_pb2 as pb

_log = log.get(__name__)
LOOK_SECONDS = 0.5  # real seconds between looks at the folder
CALL_SECONDS = 10.0  # real seconds a plugin may take to answer
REGISTER_SECONDS = 30.0  # real seconds for all that a plugin is asked, lest the others wait for one that hangs
FIRST_RETRY, LAST_RETRY = 0.5, 122.0  # cluster seconds, upstream's durationBeforeRetry
Identity = tuple[int, int]  # inode and time of change of a socket


class Refused(Exception):
    """The plugin cannot be registered; its text is told to the plugin."""


class Handler(Protocol):
    """Takes in plugins of one type."""

    async def register(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        """Make the plugin known. Raises Refused."""

    async def deregister(self, name: str, endpoint: str) -> None:
        """The plugin has left. Whatever this raises, it is called again."""


@dataclass(slots=True)
class _Plugin:
    identity: Identity
    backoff: Backoff
    retry_at: float = 0.0
    type: str = ""
    name: str = ""
    endpoint: str = ""
    registered: bool = False


class PluginWatcher:
    """One per kubelet."""

    def __init__(self, folder: Path, handlers: Mapping[str, Handler], clock: Clock) -> None:
        self._folder = folder
        self._handlers = handlers
        self._clock = clock
        self._plugins: dict[str, _Plugin] = {}
        self._leaving: list[_Plugin] = []

    async def run(self) -> None:
        """Look until cancelled."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One comparison of the folder with what is known."""
        found = sockets_in(self._folder)
        for path in [path for path, plugin in self._plugins.items() if found.get(path) != plugin.identity]:
            gone = self._plugins.pop(path)
            if gone.registered:
                gone.retry_at = 0.0
                self._leaving.append(gone)
        for gone in tuple(self._leaving):
            await self._leave(gone)
        due: list[tuple[str, _Plugin]] = []
        now = self._clock.monotonic()
        for path, identity in found.items():
            backoff = Backoff(initial=FIRST_RETRY, maximum=LAST_RETRY)
            plugin = self._plugins.setdefault(path, _Plugin(identity, backoff))
            if not plugin.registered and now >= plugin.retry_at:
                due.append((path, plugin))
        async with asyncio.TaskGroup() as group:
            for path, plugin in due:
                group.create_task(self._try(path, plugin))

    async def _leave(self, plugin: _Plugin) -> None:
        now = self._clock.monotonic()
        if now < plugin.retry_at:
            return
        try:
            await self._handlers[plugin.type].deregister(plugin.name, plugin.endpoint)
        except Exception:  # noqa: BLE001  a plugin must not end the kubelet
            plugin.retry_at = self._later(plugin, now)
            _log.exception("Failed to deregister plugin", extra=kv(plugin=plugin.name))
            return
        self._leaving.remove(plugin)
        _log.info("Plugin left", extra=kv(plugin=plugin.name))

    @staticmethod
    def _later(plugin: _Plugin, now: float) -> float:
        plugin.backoff.advance(now, now)
        return now + plugin.backoff.delay

    async def _try(self, path: str, plugin: _Plugin) -> None:
        try:
            async with asyncio.timeout(REGISTER_SECONDS):
                await self._register(path, plugin)
        except (Refused, TimeoutError) as error:
            plugin.retry_at = self._later(plugin, self._clock.monotonic())
            _log.warning("Failed to register plugin", extra=kv(socket=path, error=str(error) or "it took too long"))
        except Exception:  # noqa: BLE001  a plugin must not end the kubelet
            plugin.retry_at = self._later(plugin, self._clock.monotonic())
            _log.exception("Failed to register plugin", extra=kv(socket=path))

    async def _register(self, path: str, plugin: _Plugin) -> None:
        import grpc.aio

        from proto.pluginregistration.v1 import pluginregistration_pb2_grpc as stubs

        async with transport.channel(f"unix:{path}") as channel:
            stub: Any = stubs.RegistrationStub(channel)
            try:
                info = await stub.GetInfo(pb.InfoRequest(), timeout=CALL_SECONDS)
                try:
                    await self._take(path, plugin, info)
                except Refused as error:
                    told = pb.RegistrationStatus(plugin_registered=False, error=str(error))
                    await stub.NotifyRegistrationStatus(told, timeout=CALL_SECONDS)
                    raise
                await stub.NotifyRegistrationStatus(pb.RegistrationStatus(plugin_registered=True), timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if plugin.registered:  # it did not hear of its luck: tell it again from the start
                    plugin.registered = False
                    await self._handlers[plugin.type].deregister(plugin.name, plugin.endpoint)
                raise Refused(f"{error.code().name}: {error.details()}") from error

    async def _take(self, path: str, plugin: _Plugin, info: pb.PluginInfo) -> None:
        handler = self._handlers.get(info.type)
        if handler is None:
            raise Refused(f"no handler registered for plugin type: {info.type} at socket {path}")
        if not info.name:
            raise Refused(f"plugin at socket {path} has no name")
        endpoint = info.endpoint or path
        await handler.register(info.name, endpoint, list(info.supported_versions))
        self._leaving = [each for each in self._leaving if (each.type, each.name) != (info.type, info.name)]
        plugin.type, plugin.name, plugin.endpoint, plugin.registered = info.type, info.name, endpoint, True
        plugin.backoff.reset()
        _log.info("Registered plugin", extra=kv(type=info.type, plugin=info.name, endpoint=endpoint))


def sockets_in(folder: Path) -> dict[str, Identity]:
    """Path → identity of the sockets in the folder and its folders, hidden ones left out."""
    found: dict[str, Identity] = {}
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(top, name)
            if name.startswith("."):
                continue
            try:
                status = os.lstat(path)
            except OSError:
                continue  # gone meanwhile
            if stat.S_ISSOCK(status.st_mode):
                found[path] = (status.st_ino, status.st_ctime_ns)
    return found
