"""The real and the fake dataplane keep the same promises; the real one is nftables in a namespace of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kube_proxy.dataplane import DataplaneError, FakeDataplane, NftDataplane
from kube_proxy.rules import Endpoint, ServicePort, TableConfig, transaction
from linux import netns

CONFIG = TableConfig("nanokube", "10.244.0.0/16", "10.96.0.0/16", "10.250.0.0/24")
PLAIN = ServicePort(
    "a/web:80/TCP", "10.96.0.7", "tcp", 80, (Endpoint("10.244.1.2", 8080), Endpoint("10.244.1.3", 8080))
)
STICKY = ServicePort("a/s:1/TCP", "10.96.0.8", "tcp", 1, (Endpoint("10.244.1.2", 1, local=True),), affinity_seconds=60)
NODE_PORT = ServicePort("a/n:1/UDP", "10.96.0.9", "udp", 1, (Endpoint("10.244.1.2", 1),), 30001, ("10.1.1.1",))
EMPTY = ServicePort("a/e:1/TCP", "10.96.0.6", "tcp", 1, (), 30002)
BALANCED = ServicePort(
    **{**vars(PLAIN), "external_ips": ("10.251.0.1", "10.9.9.9"), "restricted_ips": ("10.251.0.1",)},
)
BOTH = {"internal_local": True, "external_local": True, "external_ips": ("10.251.0.1",), "node_port": 30003}
NEAR = ServicePort(**{**vars(PLAIN), **BOTH, "local_endpoints": PLAIN.endpoints[:1]})
FAR = ServicePort(**{**vars(NEAR), "local_endpoints": ()})
STICKY_NEAR = ServicePort(**{**vars(NEAR), "affinity_seconds": 60, "local_endpoints": PLAIN.endpoints})
NARROW = ServicePort(**{**vars(BALANCED), "sources": ("10.0.0.0/9", "192.0.2.7/32")})
STATES = [
    (),
    (PLAIN, STICKY, NODE_PORT, EMPTY),
    (BALANCED,),
    (NARROW,),
    (ServicePort(**{**vars(NARROW), "restricted_ips": ()}),),
    (NARROW, STICKY),
    (ServicePort(**{**vars(NARROW), "external_ips": ()}), STICKY),
    (NARROW,),
    (ServicePort(**{**vars(PLAIN), "endpoints": PLAIN.endpoints[:1]}), STICKY),
    (ServicePort(**{**vars(STICKY), "endpoints": ()}), ServicePort(**{**vars(EMPTY), "endpoints": PLAIN.endpoints})),
    (ServicePort(**{**vars(STICKY), "affinity_seconds": 0}), NODE_PORT),
    (STICKY,),
    (NEAR,),
    (FAR, STICKY),
    (STICKY_NEAR,),
    (ServicePort(**{**vars(STICKY_NEAR), "local_endpoints": PLAIN.endpoints[1:]}),),
    (ServicePort(**{**vars(STICKY_NEAR), "internal_local": False, "external_local": False, "local_endpoints": ()}),),
    (STICKY_NEAR,),
    (ServicePort(**{**vars(FAR), "endpoints": ()}),),
    (NEAR,),
    (PLAIN,),
    (STICKY_NEAR,),
    (),
]


class Namespaced(NftDataplane):
    """`nft` inside a scratch namespace, blocking: this is a test."""

    def __init__(self, path: str) -> None:
        self.path = path

    def nft(self, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        run: Callable[[], subprocess.CompletedProcess[str]] = lambda: subprocess.run(  # noqa: E731
            ["nft", *argv], input=text, text=True, capture_output=True, check=False, timeout=30
        )
        return netns.run_in(self.path, run)

    async def apply(self, text: str) -> None:
        done = self.nft("-f", "-", text=text)
        if done.returncode:
            raise DataplaneError(done.stderr)


@pytest.fixture(params=["fake", "nft"])
def dataplane(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    if request.param == "fake":
        yield FakeDataplane()
        return
    path = str(tmp_path / "netns")
    netns.create(path)
    yield Namespaced(path)
    netns.delete(path)


async def test_every_step_between_states_is_accepted(dataplane: FakeDataplane | Namespaced) -> None:
    before: dict[str, ServicePort] = {}
    await dataplane.apply(transaction(CONFIG, {}, {}, fresh=True))
    for state in STATES:
        after = {service.name: service for service in state}
        text = transaction(CONFIG, before, after)
        if text:
            await dataplane.apply(text)
        before = after
    if isinstance(dataplane, Namespaced):
        left = dataplane.nft("list", "table", "ip", "nanokube").stdout
        assert not any(prefix in left for prefix in ("ep_", "st_", "lb_", "np_", "lo_", "sl_", "tl_")), left
        assert "elements" not in left, left


async def test_a_fresh_load_replaces_whatever_was_there(dataplane: FakeDataplane | Namespaced) -> None:
    full = {service.name: service for service in STATES[1]}
    for _ in range(2):
        await dataplane.apply(transaction(CONFIG, {}, full, fresh=True))
    if isinstance(dataplane, Namespaced):
        assert dataplane.nft("list", "map", "ip", "nanokube", "service_ips").stdout.count("goto") == 4


async def test_a_refused_transaction_changes_nothing(dataplane: FakeDataplane | Namespaced) -> None:
    await dataplane.apply(transaction(CONFIG, {}, {PLAIN.name: PLAIN}, fresh=True))
    if isinstance(dataplane, FakeDataplane):
        dataplane.fail_next = True
    with pytest.raises(DataplaneError):
        await dataplane.apply("delete element ip nanokube service_ips { 10.96.0.7 . tcp . 80 }\nnonsense\n")
    if isinstance(dataplane, Namespaced):
        assert "10.96.0.7" in dataplane.nft("list", "map", "ip", "nanokube", "service_ips").stdout
