"""Namespaces and netlink against the real kernel."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from linux import netns
from linux.netlink import Netlink

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes real namespaces")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "ns" / "node")
    netns.create(path)
    yield path
    netns.delete(path)


def test_pin_and_delete(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "a")
    netns.create(path)
    assert netns.is_pinned(path)
    with pytest.raises(FileExistsError):
        netns.create(path)
    netns.delete(path)
    netns.delete(path)
    assert not Path(path).exists()


def test_failed_setup_leaves_no_pin(tmp_path: Path) -> None:
    path = str(tmp_path / "a")

    def broken() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        netns.create(path, broken)
    assert not Path(path).exists()


def test_several_kinds_at_once(tmp_path: Path) -> None:
    paths = {kind: str(tmp_path / kind) for kind in ("net", "ipc", "uts")}
    netns.pin(paths)
    try:
        own = {kind: Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in paths}
        assert all(Path(path).stat().st_ino != own[kind] for kind, path in paths.items())
    finally:
        for path in paths.values():
            netns.delete(path)


def test_routed_pod_reaches_its_node(node: str, tmp_path: Path) -> None:
    pod = str(tmp_path / "pod")
    nl = netns.run_in(node, Netlink)

    def inside() -> None:
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        nl.add_veth("vpod", "eth0", peer_ns=fd)
        os.close(fd)
        with Netlink() as own:
            own.set_up("eth0")
            own.add_address("eth0", "10.99.0.2", 32)
            own.add_route("169.254.1.1/32", dev="eth0")
            own.add_route("default", via="169.254.1.1", dev="eth0")
            assert ("0.0.0.0/0", "169.254.1.1", own.index("eth0")) in own.routes()

    try:
        netns.create(pod, inside)
        nl.add_address("lo", "169.254.1.1", 32)
        nl.add_route("10.99.0.2/32", dev="vpod", source="169.254.1.1")
        server = netns.run_in(pod, lambda: socket.create_server(("10.99.0.2", 8080)))
        client = netns.run_in(node, lambda: socket.create_connection(("10.99.0.2", 8080), timeout=5))
        client.close()
        server.close()
        assert nl.statistics("vpod")[0] > 0
        nl.delete_route("10.99.0.2/32", dev="vpod")
        nl.delete_route("10.99.0.2/32", dev="vpod", missing_ok=True)
        assert nl.is_up("vpod")
        nl.set_up("vpod", False)
        assert not nl.is_up("vpod")
        nl.delete_link("vpod")
        nl.delete_link("vpod", missing_ok=True)
    finally:
        nl.close()
        netns.delete(pod)


def test_bridge(node: str) -> None:
    def body() -> None:
        with Netlink() as nl:
            nl.add_bridge("br0")
            nl.add_veth("p0", "p1")
            nl.set_master("p0", "br0")
            assert {"br0", "p0", "p1", "lo"} <= set(nl.links())
            nl.add_address("br0", "10.98.0.1", 24)
            nl.add_neighbour("br0", "10.98.0.9", bytes.fromhex("020000000009"))

    netns.run_in(node, body)


def test_errors_say_what_failed(node: str) -> None:
    def body() -> None:
        with Netlink() as nl:
            nl.index("nosuch0")

    with pytest.raises(OSError, match=r"look up link.*nosuch0") as caught:
        netns.run_in(node, body)
    assert caught.value.errno == errno.ENODEV
