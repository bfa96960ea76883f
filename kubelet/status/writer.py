"""Writes pod statuses to the API server: only what differs, the latest wins, one request per pod at a time.

Owns what is still to be written. Never computes a status (`status.pod_status` does). Called by pod workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from api.models import core_v1
from client.client import Client, PatchType
from kubelet.status.pod_status import is_running, status_patch
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound, ServiceUnavailable, StatusError
from machinery.log import kv

_log = log.get(__name__)
SETTLE = 0.03  # real seconds: what is not urgent may be overtaken by what follows (a container that starts at once)
RETRY_FIRST, RETRY_LAST = 0.2, 5.0


@dataclass(slots=True)
class _Entry:
    key: tuple[str, str]
    known: dict[str, Any]  # the status the API server has, as far as we know
    version: int  # its revision: an informer may tell of an older one after our own write was answered
    wanted: dict[str, Any] | None = None
    task: asyncio.Task[None] | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    written: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False


class StatusWriter:
    """One per kubelet."""

    def __init__(self, client: Client, clock: Clock, tasks: asyncio.TaskGroup) -> None:
        self._client = client
        self._clock = clock
        self._tasks = tasks
        self._entries: dict[str, _Entry] = {}

    def learn(self, pod: core_v1.Pod) -> None:
        """The API server's own version of a pod, newer than what we knew."""
        meta = pod.metadata
        assert meta is not None
        entry = self._entries.get(meta.uid or "")
        version = _revision(pod)
        if entry is None:
            key = (meta.namespace or "", meta.name or "")
            self._entries[meta.uid or ""] = _Entry(key, plain(pod.status), version)
        elif entry.task is None and version > entry.version:
            entry.known, entry.version = plain(pod.status), version

    def write(self, uid: str, status: dict[str, Any]) -> None:
        """Make this the pod's status as soon as possible."""
        entry = self._entries.get(uid)
        if entry is None or entry.gone:
            return
        if entry.wanted == status and entry.task is not None:
            return
        entry.wanted = status
        if entry.task is not None:
            if is_running(status):
                entry.wake.set()
            return
        if status_patch(uid, entry.known, status) is None:
            return
        entry.written.clear()
        entry.wake.clear()
        if is_running(status):
            entry.wake.set()
        entry.task = self._tasks.create_task(self._run(uid, entry))

    async def flushed(self, uid: str, seconds: float) -> None:
        """Wait until the last status is written; at most that many real seconds (the object may be gone)."""
        entry = self._entries.get(uid)
        if entry is None or entry.task is None:
            return
        entry.wake.set()
        try:
            async with asyncio.timeout(seconds):
                await entry.written.wait()
        except TimeoutError:
            _log.debug("Gave up waiting for a status write", extra=kv(uid=uid))

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        entry = self._entries.pop(uid, None)
        if entry is not None:
            entry.gone = True
            entry.wake.set()

    async def _run(self, uid: str, entry: _Entry) -> None:
        retry = RETRY_FIRST
        try:
            while not entry.gone:
                try:
                    async with asyncio.timeout(SETTLE):
                        await entry.wake.wait()
                except TimeoutError:
                    pass
                entry.wake.clear()
                patch = status_patch(uid, entry.known, entry.wanted or {})
                if patch is None:
                    return
                try:
                    namespace, name = entry.key
                    updated = await self._client.patch(
                        core_v1.Pod, name, patch, namespace, type=PatchType.STRATEGIC, subresource="status"
                    )
                    entry.known, entry.version = plain(updated.status), _revision(updated)
                    retry = RETRY_FIRST
                    if patch == status_patch(uid, entry.known, entry.wanted or {}):
                        _log.warning("A status write had no effect", extra=kv(pod=f"{namespace}/{name}"))
                        return
                except NotFound:
                    return
                except StatusError as error:
                    if error.code in (409, 422, 400):  # another object of that name, or one the server will never take
                        _log.warning("Status was refused", extra=kv(pod="/".join(entry.key), error=error.message))
                        return
                    if not isinstance(error, ServiceUnavailable):
                        _log.warning("Failed to write status", extra=kv(pod="/".join(entry.key), error=error.message))
                    await asyncio.sleep(retry)
                    retry = min(retry * 2, RETRY_LAST)
        except Exception:  # noqa: BLE001  one pod's trouble must not end the kubelet
            _log.exception("Failed to write status", extra=kv(pod="/".join(entry.key)))
        finally:
            entry.task = None
            entry.written.set()


def _revision(pod: core_v1.Pod) -> int:
    text = (pod.metadata.resourceVersion if pod.metadata else None) or ""
    return int(text) if text.isdigit() else 0


def plain(status: core_v1.PodStatus | core_v1.NodeStatus | None) -> dict[str, Any]:
    """A typed status as JSON with metav1.Time texts, comparable to what we compute."""
    if status is None:
        return {}
    result: dict[str, Any] = msgspec.to_builtins(status)
    _times(result)
    return result


_TIMES = ("lastTransitionTime", "lastProbeTime", "lastHeartbeatTime", "startTime", "startedAt", "finishedAt")


def _times(value: Any) -> None:
    """Cut fractions off: models print them, metav1.Time has none."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _TIMES and isinstance(inner, str) and len(inner) > 20:
                value[key] = inner[:19] + "Z"  # type: ignore[index]
            elif isinstance(inner, dict | list):
                _times(inner)
    elif isinstance(value, list):
        for inner in value:
            _times(inner)
