"""Large answers: piece by piece, compressed on request, the same bytes for all, never stale."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any, cast

import pytest

from apiserver.rest.responses import PIECE, ZIPPED
from tests.harness.apiserver import RunningApiServer

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, size: int) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "xyz " * (size // 4)}}


async def test_a_list_of_many_pieces_is_whole_and_follows_changes(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for number in range(3):
        await rest.post(CONFIG_MAPS, config_map(f"m{number}", PIECE // 2))
    answers = await asyncio.gather(*(rest.get(CONFIG_MAPS) for _ in range(4)))
    assert all(int(answer.header("content-length")) == len(answer.body) > PIECE for answer in answers)
    assert [item["metadata"]["name"] for item in answers[0].json["items"]] == ["m0", "m1", "m2"]
    assert len({json.dumps(answer.json["items"]) for answer in answers}) == 1
    await rest.request("DELETE", f"{CONFIG_MAPS}/m1")
    await rest.post("/api/v1/namespaces", {"metadata": {"name": "other"}})
    later = await rest.get(CONFIG_MAPS)
    assert [item["metadata"]["name"] for item in later.json["items"]] == ["m0", "m2"]
    assert int(later.json["metadata"]["resourceVersion"]) > int(answers[0].json["metadata"]["resourceVersion"])
    everywhere = await rest.get("/api/v1/configmaps")
    assert {"m0", "m2"} <= {item["metadata"]["name"] for item in everywhere.json["items"]}


@pytest.mark.parametrize("path", [CONFIG_MAPS, f"{CONFIG_MAPS}/big"], ids=["list", "object"])
async def test_large_answers_are_compressed_for_clients_that_ask(apiserver: RunningApiServer, path: str) -> None:
    rest = apiserver.rest()
    await rest.post(CONFIG_MAPS, config_map("big", 2 * ZIPPED))
    plain = await rest.get(path)
    assert plain.header("content-encoding") == ""
    zipped = await rest.get(path, **{"accept-encoding": "br, gzip;q=0.5"})
    assert (zipped.header("content-encoding"), zipped.header("vary")) == ("gzip", "Accept-Encoding")
    assert len(zipped.body) < len(plain.body) and gzip.decompress(zipped.body) == plain.body


async def test_small_answers_are_not_compressed(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await rest.post(CONFIG_MAPS, config_map("small", 100))
    answer = await rest.get(CONFIG_MAPS, **{"accept-encoding": "gzip"})
    assert answer.header("content-encoding") == "" and answer.json["items"]


async def test_a_client_that_does_not_read_holds_nobody_up(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for number in range(4):
        await rest.post(CONFIG_MAPS, config_map(f"m{number}", 900_000))
    stalled = []
    for _ in range(3):
        reader, writer = await rest.connect()
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(rest.head("GET", CONFIG_MAPS, b"", {}))
        stalled.append((reader, writer))
    async with asyncio.timeout(10):
        whole = await rest.get(CONFIG_MAPS)
    assert len(whole.json["items"]) == 4
    for _, writer in stalled:
        writer.close()
