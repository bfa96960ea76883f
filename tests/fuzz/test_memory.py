"""What a server keeps of requests that are over: nothing, once its bounded caches are full.

Live objects are counted by type, after the same number of requests once and once more: resident memory would also tell
of the allocator. The caches' bounds are set low, so that a short test fills them.
"""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import pytest

from apiserver.assembly import ApiServer, Settings
from apiserver.storage.feed import HISTORY_BOOKMARKS
from machinery.clock import RealClock
from tests.contract.etcd_server import EtcdServer
from tests.fuzz.run import Fuzz
from tests.fuzz.target import TOKEN

SEED, ROUNDS, REQUESTS = 1136, 2, 700
OURS = ("apiserver.", "machinery.", "api.")
# Made once for each part of the schema, or for each resource, verb and code, when first met.
OF_SCHEMA = (
    "apiserver.apply.shapes.",
    "api.schema.",
    "machinery.protobuf_fields.",
    "apiserver.registry.defaults.",
    "apiserver.metrics._Answered",
    "apiserver.registry.admission_times.Rows",
)
PER_REQUEST = {True: 0.01, False: 0.4}
"""Objects more after each request that still pass: of our own types, and of others (counters of new series)."""
BOUNDS = (
    ("apiserver.auth.rbac.CACHE_LIMIT", 50),
    ("apiserver.flowcontrol.control.CACHE_LIMIT", 50),
    ("apiserver.storage.cache.RING_KEEP", 2),
)


class InProcess:
    """A server inside the test, on plain HTTP."""

    def __init__(self, server: ApiServer) -> None:
        self.host, _, port = server.rest_addresses[0].rpartition(":")
        self.port = int(port)

    @property
    def alive(self) -> bool:
        return True

    def rss(self) -> float:
        return 0.0

    def memory(self) -> dict[str, float]:
        return {}

    def log(self) -> str:
        return ""


def living(server: ApiServer) -> Counter[str]:
    """Objects by type, when nobody can resume a watch any more."""
    for _ in range(HISTORY_BOOKMARKS + 1):
        server.registry.feed.grow_old()
    gc.collect()
    return Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in map(type, gc.get_objects()))


async def test_requests_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bound in BOUNDS:
        monkeypatch.setattr(name, bound)
    tokens = tmp_path / "tokens.csv"
    tokens.write_text(f'{TOKEN},fuzzer,uid-fuzzer,"system:masters"\n')
    etcd = EtcdServer(tmp_path)
    etcd.start()
    try:
        server = ApiServer(Settings(etcd=etcd.target, binds=("127.0.0.1:0",), token_file=tokens), RealClock())
        async with server.running():
            await server.wait_ready()
            fuzz = Fuzz(InProcess(server), SEED)
            await fuzz.rounds(ROUNDS, REQUESTS)
            before, first = living(server), fuzz.report.requests
            await fuzz.rounds(ROUNDS, REQUESTS)
            after, sent = living(server), fuzz.report.requests - first
    finally:
        etcd.kill()
    assert fuzz.report.codes[201] > 100
    grown = {name: after[name] - before[name] for name in after if not name.startswith(OF_SCHEMA)}
    grown = {name: more for name, more in grown.items() if more > 20 + sent * PER_REQUEST[name.startswith(OURS)]}
    assert not grown, f"after {sent} requests more"
