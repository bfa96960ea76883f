"""The underlay: one switch per cluster, in a network namespace of its own, to which the host and machines are cabled.

The switch stands apart from the host's namespace so that a FORWARD policy of the host (Docker sets DROP) cannot cut
traffic between machines. The host's end carries the first address of the underlay; machines reach the API server and
the outside world through it. All calls block for well under a millisecond each.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from linux import netns
from linux.mount import bind
from linux.netlink import Netlink

BRIDGE = "switch"
MTU = 1500


@dataclass(frozen=True)
class Underlay:
    """Names and addresses of one cluster's underlay. `tag` (short, unique on the machine) names host interfaces."""

    tag: str
    network: ipaddress.IPv4Network
    switch_netns: Path
    host_netns: Path

    @property
    def host_link(self) -> str:
        return f"nk-{self.tag}"[:15]

    @property
    def host_ip(self) -> str:
        return str(self.network[1])

    def build(self, through_host: Iterable[str] = ()) -> None:
        """Make the switch and cable the host to it. Idempotent: what stands is kept.

        `through_host`: networks (cluster IPs) that the host shall look for here, whatever its default route is.
        """
        pin_own(self.host_netns)
        if not netns.is_pinned(str(self.switch_netns)):
            self.switch_netns.unlink(missing_ok=True)
            netns.create(str(self.switch_netns), _make_bridge)
        with Netlink() as host:
            if not host.exists(self.host_link):
                with _descriptor(self.switch_netns) as switch:
                    host.add_veth(self.host_link, "host", peer_ns=switch, mtu=MTU)
            netns.run_in(str(self.switch_netns), lambda: _plug("host"))
            host.set_up(self.host_link)
            host.add_address(self.host_link, self.host_ip, self.network.prefixlen)
            for network in through_host:
                host.add_route(network, dev=self.host_link, source=self.host_ip)

    def remove(self) -> None:
        """Take everything down; nothing there is fine."""
        with Netlink() as host:
            host.delete_link(self.host_link, missing_ok=True)
        netns.delete(str(self.switch_netns))
        netns.delete(str(self.host_netns))

    def connect(self, machine_netns: Path, port: str, address: str) -> None:
        """Cable a machine: its `eth0` gets `address`, a default route through the host, and forwarding on."""
        with _descriptor(machine_netns) as machine:
            netns.run_in(str(self.switch_netns), lambda: _cable(port, machine))

        def inside() -> None:
            with Netlink() as nl:
                nl.set_up("eth0")
                nl.add_address("eth0", address, self.network.prefixlen)
                nl.add_route("default", via=self.host_ip, dev="eth0")
            for key, value in _SYSCTLS.items():
                with contextlib.suppress(FileNotFoundError):
                    Path("/proc/sys", key).write_text(value)

        netns.run_in(str(machine_netns), inside)

    def set_port(self, port: str, up: bool) -> None:
        """Partition a machine (its port on the switch goes down) or heal it; its own addresses and routes are kept."""

        def inside() -> None:
            with Netlink() as nl:
                nl.set_up(port, up)

        netns.run_in(str(self.switch_netns), inside)

    def unplug(self, port: str) -> None:
        """Remove a machine's cable; nothing there is fine."""

        def inside() -> None:
            with Netlink() as nl:
                nl.delete_link(port, missing_ok=True)

        if netns.is_pinned(str(self.switch_netns)):
            netns.run_in(str(self.switch_netns), inside)


_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/eth0/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/ip_local_port_range": "32768 60999",
}


def pin_own(path: Path) -> None:
    """Pin the caller's network namespace at `path`, so that processes of machines can reach it later."""
    if netns.is_pinned(str(path)):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    bind("/proc/self/ns/net", str(path))


def _make_bridge() -> None:
    with Netlink() as nl:
        nl.add_bridge(BRIDGE)
    with contextlib.suppress(FileNotFoundError):  # the kernel may lack br_netfilter, then nothing needs turning off
        Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("0")


def _plug(port: str) -> None:
    with Netlink() as nl:
        nl.set_master(port, BRIDGE)
        nl.set_up(port)


def _cable(port: str, machine: int) -> None:
    with Netlink() as nl:
        try:
            nl.add_veth(port, "eth0", peer_ns=machine, master=nl.index(BRIDGE), mtu=MTU)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise


@contextlib.contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
