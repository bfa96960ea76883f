"""Status writes: the latest wins, one at a time, nothing that does not differ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from api.models import core_v1
from client.client import Client
from kubelet.status.writer import StatusWriter
from machinery.clock import VirtualClock
from machinery.errors import NotFound, ServiceUnavailable, StatusError


class Door:
    """Keeps one pod's status as the API server would."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}
        self.version = 1
        self.patches: list[dict[str, Any]] = []
        self.failures: list[StatusError] = []
        self.busy = 0

    def pod(self) -> core_v1.Pod:
        meta = {"name": "web", "namespace": "ns", "uid": "u", "resourceVersion": str(self.version)}
        return msgspec.convert({"metadata": meta, "status": self.status}, core_v1.Pod)

    async def patch(self, kind: Any, name: str, patch: dict[str, Any], namespace: str, **more: Any) -> core_v1.Pod:
        assert self.busy == 0, "two writes of one pod at the same time"
        self.busy += 1
        await asyncio.sleep(0.001)
        self.busy -= 1
        if self.failures:
            raise self.failures.pop(0)
        self.patches.append(patch["status"])
        self.status.update(patch["status"])
        self.version += 1
        return self.pod()


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
async def writer(door: Door) -> AsyncIterator[StatusWriter]:
    async with asyncio.TaskGroup() as tasks:
        made = StatusWriter(cast(Client, door), VirtualClock(), tasks)
        made.learn(door.pod())
        yield made


async def test_statuses_in_a_row_become_one_write(writer: StatusWriter, door: Door) -> None:
    for number in range(5):
        writer.write("u", {"phase": "Pending", "message": str(number)})
    await writer.flushed("u", 5)
    assert door.patches == [{"phase": "Pending", "message": "4"}]


async def test_what_comes_during_a_write_is_written_after_it(writer: StatusWriter, door: Door) -> None:
    writer.write("u", {"phase": "Running"})
    await asyncio.sleep(0)
    writer.write("u", {"phase": "Succeeded"})
    await writer.flushed("u", 5)
    assert door.status["phase"] == "Succeeded"


async def test_an_equal_status_is_not_written(writer: StatusWriter, door: Door) -> None:
    writer.write("u", {"phase": "Running"})
    await writer.flushed("u", 5)
    writer.write("u", {"phase": "Running"})
    await writer.flushed("u", 5)
    assert len(door.patches) == 1


async def test_an_older_version_from_the_informer_does_not_provoke_a_write(writer: StatusWriter, door: Door) -> None:
    before = door.pod()
    writer.write("u", {"phase": "Running"})
    await writer.flushed("u", 5)
    writer.learn(before)
    writer.write("u", {"phase": "Running"})
    await writer.flushed("u", 5)
    assert len(door.patches) == 1


async def test_what_somebody_else_changed_is_put_right(writer: StatusWriter, door: Door) -> None:
    writer.write("u", {"phase": "Running"})
    await writer.flushed("u", 5)
    door.status, door.version = {"phase": "Unknown"}, door.version + 1
    writer.learn(door.pod())
    writer.write("u", {"phase": "Running"})
    await writer.flushed("u", 5)
    assert door.status["phase"] == "Running"


async def test_a_write_is_retried_until_the_api_server_is_back(writer: StatusWriter, door: Door) -> None:
    door.failures = [ServiceUnavailable("away")]
    writer.write("u", {"phase": "Running"})
    await writer.flushed("u", 5)
    assert door.patches == [{"phase": "Running"}]


async def test_a_pod_that_is_gone_is_no_longer_written(writer: StatusWriter, door: Door) -> None:
    door.failures = [NotFound.of("pods", "web")]
    writer.write("u", {"phase": "Running"})
    await writer.flushed("u", 5)
    assert door.patches == []
    writer.forget("u")
    writer.write("u", {"phase": "Failed"})
    assert door.patches == []
