"""Start, stop and trouble: etcd goes away and comes back, clients that do not read, a stop with work under way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from machinery.clock import RealClock
from tests.contract.etcd_server import EtcdServer
from tests.harness.apiserver import RunningApiServer, eventually, running_apiserver, until_status

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


async def test_what_was_acknowledged_survives_etcd_and_the_server(tmp_path: Path) -> None:
    etcd = EtcdServer(tmp_path)
    etcd.start()
    try:
        async with running_apiserver("etcd", etcd=etcd.target) as server:
            rest = server.rest()
            assert (await rest.post(CONFIG_MAPS, {"metadata": {"name": "before"}})).status == 201
            etcd.kill()
            refused = await rest.post(CONFIG_MAPS, {"metadata": {"name": "during"}})
            assert refused.status in (503, 504)
            assert refused.json["kind"] == "Status"
            etcd.start()
            assert await until_status(rest, "/readyz", lambda status: status == 200) == 200
            assert await until_status(rest, f"{CONFIG_MAPS}/before", lambda status: status == 200) == 200
            assert (await rest.post(CONFIG_MAPS, {"metadata": {"name": "after"}})).status == 201
        async with running_apiserver("etcd", etcd=etcd.target) as server:
            for name in ("before", "after"):
                assert (await server.rest().get(f"{CONFIG_MAPS}/{name}")).status == 200
    finally:
        etcd.kill()


async def test_probes_are_answered_before_the_store_is_there(tmp_path: Path) -> None:
    from apiserver.assembly import ApiServer, Settings
    from tests.harness.apiserver import RestClient, shared_pki

    pki = shared_pki()
    settings = Settings(etcd=f"unix:{tmp_path}/none.sock", binds=("127.0.0.1:0",), tls=pki.serving)
    server = ApiServer(settings, RealClock())
    async with server.running():
        port = int(server.rest_addresses[0].rpartition(":")[2])
        rest = RestClient("127.0.0.1", port, pki.ca, token="")
        answer = await rest.get("/readyz")
        assert (answer.status, b"[-]etcd failed: reason withheld" in answer.body) == (500, True)
        assert (await rest.get("/livez/ping")).status == 503  # others wait for the roles
        assert (await rest.get(CONFIG_MAPS)).status == 503


async def test_a_taken_address_is_an_os_error(apiserver: RunningApiServer) -> None:
    from apiserver.assembly import ApiServer, Settings

    second = ApiServer(Settings(binds=(f"127.0.0.1:{apiserver.port}",)), RealClock())
    with pytest.raises(OSError, match="in use"):
        async with second.running():
            raise AssertionError("started on a taken address")


async def test_a_stop_ends_watches_cleanly() -> None:
    async with running_apiserver() as server, server.rest().watch(f"{CONFIG_MAPS}?watch=1") as events:
        stopped = asyncio.ensure_future(server.server._stop_doors())
        async with asyncio.timeout(5):
            assert [event async for event in events] == []
            await stopped


async def test_a_client_that_does_not_read_costs_only_itself(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    reader, writer = await rest.connect()
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # nothing else stops a stream from buffering
    writer.write(rest.head("GET", f"{CONFIG_MAPS}?watch=1", b"", {}))
    await eventually(lambda: len(apiserver.server.streams) == 1)
    (watcher,) = apiserver.server.streams._open
    watcher._limit = 10  # the real one is thousands of events
    big = {"data": {"a": "x" * 200_000}}
    async with rest.watch(f"{CONFIG_MAPS}?watch=1") as events:
        for number in range(120):
            made = await rest.post(CONFIG_MAPS, {"metadata": {"name": f"m-{number}"}, **big})
            assert made.status == 201
            async with asyncio.timeout(5):
                assert (await anext(events))["object"]["metadata"]["name"] == f"m-{number}"
        # The one who never read was ended, and the buffer that waited for it is gone.
        assert watcher._error is not None
        assert watcher._buffer == []
    writer.close()
    await eventually(lambda: len(apiserver.server.streams) == 0)


async def test_too_many_requests_are_turned_away() -> None:
    from apiserver.auth.user import UserInfo
    from apiserver.rest.limits import InFlight
    from machinery.errors import TooManyRequests

    limit, user = InFlight(2), UserInfo("x")
    lane = limit.enter("GET", user)
    other = limit.enter("POST", user)
    with pytest.raises(TooManyRequests) as caught:
        limit.enter("GET", user)
    assert caught.value.retry_after_seconds == 1
    assert limit.enter("GET", UserInfo("admin", ("system:masters",))) == lane
    limit.leave(other)
    assert limit.counts == [2, 0]
