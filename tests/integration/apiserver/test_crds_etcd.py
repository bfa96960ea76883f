"""Definitions on a real etcd: every server serves them, and a new one does so from its first moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.etcd_server import EtcdServer
from tests.harness.apiserver import running_apiserver
from tests.integration.apiserver.test_crds import CRDS, NAMESPACED, definition, establish, until, widget


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path)
    server.start()
    yield server
    server.kill()


async def test_servers_agree_and_a_new_one_knows_at_once(etcd: EtcdServer) -> None:
    async with (
        running_apiserver(store="etcd", etcd=etcd.target) as first,
        running_apiserver(store="etcd", etcd=etcd.target) as second,
    ):
        one, other = first.rest(), second.rest()
        await establish(one, definition())
        await until(other, NAMESPACED, lambda answer: answer.status == 200)
        assert (await one.post(NAMESPACED, widget("one"))).status == 201
        read = await other.get(f"{NAMESPACED}/one")
        assert (read.status, read.json["spec"]["mode"]) == (200, "a")
        async with running_apiserver(store="etcd", etcd=etcd.target) as late:
            listed = await late.rest().get(NAMESPACED)
            assert [item["metadata"]["name"] for item in listed.json["items"]] == ["one"]
            assert (await late.rest().post(NAMESPACED, widget("bad", "x"))).status == 422
        await other.request("DELETE", f"{CRDS}/widgets.toys.example.com")
        await until(one, f"{CRDS}/widgets.toys.example.com", lambda answer: answer.status == 404)
        for rest in (one, other):
            await until(rest, NAMESPACED, lambda answer: answer.status == 404)
        page = await first.server.store.range(b"/registry/toys.example.com/", b"/registry/toys.example.com0")
        assert page.items == []
