"""Many calls at once over one stream: every one is answered, failures by failure, and a broken stream is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.models import core_v1
from client.client import Client
from client.session import Session
from machinery.errors import AlreadyExists, NotFound, ServiceUnavailable, StatusError, Timeout
from proto.api.v1 import resource_pb2 as pb
from tests.harness.apiserver import RunningApiServer, running_apiserver


@pytest.fixture
async def server() -> AsyncIterator[RunningApiServer]:
    async with running_apiserver() as running:
        yield running


@pytest.fixture
async def client(server: RunningApiServer) -> AsyncIterator[Client]:
    made = Client.connect(server.grpc_target, server.admin_tls)
    try:
        yield made
    finally:
        await made.close()


def config_map(name: str, size: int = 1) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"k": "x" * size}}


async def test_every_call_gets_its_own_answer(client: Client) -> None:
    names = [f"c{number}" for number in range(600)]
    made = await asyncio.gather(*(client.create(config_map(name)) for name in names))
    assert [each["metadata"]["name"] for each in made] == names
    again = await asyncio.gather(*(client.create(config_map(name)) for name in names[:50]), return_exceptions=True)
    assert all(isinstance(each, AlreadyExists) for each in again)
    calls = [
        client.get(core_v1.ConfigMap, name if number % 2 else "none", "default") for number, name in enumerate(names)
    ]
    found = await asyncio.gather(*calls, return_exceptions=True)
    for number, answer in enumerate(found):
        if number % 2:
            assert isinstance(answer, core_v1.ConfigMap)
            assert answer.metadata is not None
            assert answer.metadata.name == names[number]
        else:
            assert isinstance(answer, NotFound)


async def test_large_objects_share_messages_without_becoming_too_large(client: Client) -> None:
    made = await asyncio.gather(*(client.create(config_map(f"big{number}", 700_000)) for number in range(12)))
    assert len(made) == 12
    found = await asyncio.gather(*(client.get(core_v1.ConfigMap, f"big{number}", "default") for number in range(12)))
    assert all(len((each.data or {})["k"]) == 700_000 for each in found)


async def test_cancelled_calls_leave_the_others_alone(client: Client) -> None:
    tasks = [asyncio.ensure_future(client.create(config_map(f"x{number}"))) for number in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in answers[::2])
    assert all(isinstance(each, dict) for each in answers[1::2])


async def test_a_call_without_a_request_is_refused(server: RunningApiServer) -> None:
    from machinery import grpc as transport
    from proto.api.v1 import resource_pb2_grpc

    channel = transport.channel(server.grpc_target, server.admin_tls)
    stub: Any = resource_pb2_grpc.ResourceServiceStub(channel)
    session = Session(stub.Session, 5.0)
    with pytest.raises(StatusError) as caught:
        await session.call(pb.Call())
    assert caught.value.code == 400
    await session.close()
    await channel.close()


async def test_calls_go_on_after_the_server_ended_the_session(server: RunningApiServer, client: Client) -> None:
    await client.create(config_map("before"))
    service = server.server._service
    assert service is not None
    await service.stop()
    for attempt in range(20):
        try:
            await client.create(config_map(f"after{attempt}"))
            return
        except ServiceUnavailable:
            await asyncio.sleep(0.05)
    pytest.fail("no new session")


class _Mute:
    """A stream on which nobody ever answers."""

    async def write(self, batch: pb.CallBatch) -> None:
        pass

    def cancel(self) -> None:
        pass

    def __aiter__(self) -> _Mute:
        return self

    async def __anext__(self) -> pb.ReplyBatch:
        await asyncio.Event().wait()
        raise StopAsyncIteration


async def test_a_server_that_never_answers_is_given_up() -> None:
    session = Session(_Mute, 0.05)
    with pytest.raises(Timeout):
        await session.call(pb.Call(get=pb.GetRequest()))
    await session.close()


async def test_a_call_on_a_closed_channel_fails_at_once(server: RunningApiServer) -> None:
    client = Client.connect(server.grpc_target, server.admin_tls)
    await client.create(config_map("before"))
    await client.close()
    with pytest.raises(ServiceUnavailable):
        async with asyncio.timeout(5):
            await client.create(config_map("after"))
