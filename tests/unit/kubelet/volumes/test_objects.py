"""Reading ConfigMaps and Secrets: one request at a time, and the last answer while the API server is away."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from api.models import core_v1
from client.client import Client
from kubelet.volumes.objects import ObjectReader
from machinery.clock import VirtualClock
from machinery.errors import NotFound, ServiceUnavailable, StatusError


class Door:
    """The one verb that is used: answers what it is told, after everybody had a chance to ask."""

    def __init__(self) -> None:
        self.answer: core_v1.ConfigMap | StatusError = core_v1.ConfigMap(data={"a": "1"})
        self.asked = 0

    async def get(self, kind: Any, name: str, namespace: str) -> Any:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.answer, StatusError):
            raise self.answer
        return self.answer


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def reader(door: Door) -> ObjectReader:
    return ObjectReader(cast(Client, door), VirtualClock())


async def data(reader: ObjectReader) -> object:
    found = (await reader.config_maps("ns", ["cm"]))["cm"]
    return found.data if found is not None else None


async def test_concurrent_reads_are_one_request(reader: ObjectReader, door: Door) -> None:
    assert await asyncio.gather(*(data(reader) for _ in range(20))) == [{"a": "1"}] * 20
    assert door.asked == 1


async def test_every_later_read_is_fresh(reader: ObjectReader, door: Door) -> None:
    await data(reader)
    door.answer = core_v1.ConfigMap(data={"a": "2"})
    assert await data(reader) == {"a": "2"}


async def test_the_last_answer_stands_in_while_the_api_server_is_away(reader: ObjectReader, door: Door) -> None:
    await data(reader)
    door.answer = ServiceUnavailable("away")
    assert await data(reader) == {"a": "1"}
    door.answer = NotFound.of("configmaps", "cm")
    assert await data(reader) is None
    door.answer = ServiceUnavailable("away")
    assert await data(reader) is None, "a deletion is an answer too"


async def test_what_was_never_read_cannot_stand_in(reader: ObjectReader, door: Door) -> None:
    door.answer = ServiceUnavailable("away")
    with pytest.raises(ServiceUnavailable):
        await data(reader)


async def test_a_reader_that_is_cancelled_does_not_take_the_others_with_it(reader: ObjectReader, door: Door) -> None:
    first = asyncio.ensure_future(data(reader))
    others = [asyncio.ensure_future(data(reader)) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == [{"a": "1"}] * 3
