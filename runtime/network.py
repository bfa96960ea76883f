"""Pod network of one node: an address from the node's pod CIDR and a routed veth per pod, no bridge.

A pod has its address as /32 and reaches everything through 169.254.1.1, which exists only as a fixed neighbour entry;
the node has one /32 route per pod. The node's other pods, its own address and the rest of the cluster are all one hop
away through the node. Owns the address table and `network.json`; the kernel objects belong to the sandbox's namespace
and vanish with it. Blocking (about 1 ms a pod): call from a thread. Called by the sandbox lifecycle.
"""

from __future__ import annotations

import errno
import ipaddress
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from linux import netns, syscall
from linux.netlink import Netlink
from runtime.faults import BadConfig, RuntimeFault
from runtime.records import write_atomically

GATEWAY = "169.254.1.1"
NODE_MAC = bytes.fromhex("eeeeeeeeeeee")
_DEFAULT_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
_POD_SYSCTLS = ("net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


class NetworkState(msgspec.Struct, omit_defaults=True):
    """What is remembered over restarts."""

    pod_cidr: str = ""
    last: str = ""


def plan_address(cidr: str, taken: Iterable[str], last: str) -> str:
    """The next free address after `last`, wrapping around; the first and last two are never given. Pure.

    Going on from the last one keeps a freed address unused for as long as possible, so that nobody talks to a
    stranger at an address he remembered.
    """
    network = ipaddress.IPv4Network(cidr)
    first, final = int(network.network_address) + 2, int(network.broadcast_address) - 1
    if final < first:
        raise RuntimeFault(f"pod CIDR {cidr} has no room for pods")
    used = {int(ipaddress.IPv4Address(address)) for address in taken}
    start = int(ipaddress.IPv4Address(last)) + 1 if last else first
    if not first <= start <= final:
        start = first
    count = final - first + 1
    for step in range(count):
        candidate = first + (start - first + step) % count
        if candidate not in used:
            return str(ipaddress.IPv4Address(candidate))
    raise RuntimeFault(f"failed to allocate an address: no IP addresses available in range {cidr}")


def pod_mac(address: str) -> bytes:
    """A pod's MAC, derived from its address: a reused address never meets a stale neighbour entry."""
    return b"\x0a\x58" + ipaddress.IPv4Address(address).packed


def network_link(sandbox_id: str) -> str:
    """Name of the node's end of a pod's link."""
    return f"veth{sandbox_id[:9]}"


def check_sysctls(sysctls: Mapping[str, str], *, host_network: bool) -> None:
    """Raise BadConfig for a sysctl that would reach beyond the pod."""
    for name in sysctls:
        plain = name.replace("/", ".")
        if not plain.startswith(_POD_SYSCTLS) or ".." in plain:
            raise BadConfig(f'sysctl "{name}" is not in a separate kernel namespace')
        if host_network and plain.startswith("net."):
            raise BadConfig(f'sysctl "{name}" is not allowed with host network')


class PodNetwork:
    """Addresses and links of this node's pods."""

    def __init__(self, state_file: Path, node_ip: str = "") -> None:
        self._file = state_file
        self._node_ip = node_ip
        self._lock = threading.Lock()
        self._addresses: dict[str, str] = {}  # address → sandbox id
        try:
            self._state = msgspec.json.decode(state_file.read_bytes(), type=NetworkState)
        except (FileNotFoundError, msgspec.DecodeError):
            self._state = NetworkState()
        self._netlink: Netlink | None = None

    @property
    def pod_cidr(self) -> str:
        """The CIDR pods get addresses from; empty until configured."""
        return self._state.pod_cidr

    def open(self) -> None:
        """Bind to the network namespace of this process (the machine's) and restore what a reboot of it lost."""
        self._netlink = Netlink()
        if self.pod_cidr:
            self._prepare_node()

    def close(self) -> None:
        """Release the socket; pods keep their network."""
        if self._netlink is not None:
            self._netlink.close()

    def configure(self, pod_cidr: str) -> None:
        """Take the node's pod CIDR. Pods that run keep their addresses. Raises BadConfig."""
        if not pod_cidr:
            return
        try:
            network = ipaddress.IPv4Network(pod_cidr.split(",")[0].strip(), strict=False)
        except ValueError as error:
            raise BadConfig(f"pod CIDR {pod_cidr!r}: {error}") from error
        with self._lock:
            if str(network) != self._state.pod_cidr:
                self._state = NetworkState(str(network))
                write_atomically(self._file, msgspec.json.encode(self._state))
            self._prepare_node()

    def _prepare_node(self) -> None:
        with suppress(OSError):  # a machine may have it set and /proc/sys read-only
            forward = Path("/proc/sys/net/ipv4/ip_forward")
            if forward.read_text().strip() != "1":
                forward.write_text("1")
        if self._netlink is not None:
            # Traffic to an address without a pod ends here at once instead of circling between node and network.
            self._netlink.add_route(self.pod_cidr, unreachable=True)

    def adopt(self, sandbox_id: str, address: str, link: str) -> bool:
        """Take over a pod that already runs; False when its link is gone (the machine was made anew)."""
        with self._lock:
            node = self._node()
            if not node.exists(link):
                return False
            self._addresses[address] = sandbox_id
            node.add_route(f"{address}/32", dev=link, source=self._node_ip or None)
            return True

    def create(
        self,
        sandbox_id: str,
        link: str,
        pins: Mapping[str, str],
        *,
        hostname: str,
        host_network: bool,
        sysctls: Mapping[str, str],
    ) -> str:
        """Make and pin a sandbox's namespaces; with its own network, connect it. Returns its address."""
        if not host_network and not self.pod_cidr:
            raise RuntimeFault("network is not ready: the node has no pod CIDR yet", "FAILED_PRECONDITION")
        if host_network:
            netns.pin(pins, lambda: self._inside_host(hostname, sysctls))
            return ""
        address = self._allocate(sandbox_id)
        try:
            netns.pin(pins, lambda: self._inside(pins, link, address, hostname, sysctls))
            node = self._node()
            with self._lock:
                node.add_neighbour(link, address, pod_mac(address))
                node.add_route(f"{address}/32", dev=link, source=self._node_ip or None)
        except BaseException:
            self.release(sandbox_id, address, link)
            for path in pins.values():
                netns.delete(path)
            raise
        return address

    def _inside_host(self, hostname: str, sysctls: Mapping[str, str]) -> None:
        syscall.sethostname(hostname)
        _write_sysctls(sysctls)

    def _inside(
        self, pins: Mapping[str, str], link: str, address: str, hostname: str, sysctls: Mapping[str, str]
    ) -> None:
        syscall.sethostname(hostname)
        with Path(pins["net"]).open("rb") as namespace, self._lock:
            node = self._node()
            for attempt in (1, 2):
                try:
                    node.add_veth(link, "eth0", peer_ns=namespace.fileno(), mac=NODE_MAC, peer_mac=pod_mac(address))
                    break
                except OSError as error:
                    if error.errno != errno.EEXIST or attempt == 2:
                        raise
                    node.delete_link(link, missing_ok=True)  # left behind by a crash between link and record
        with Netlink() as pod:
            pod.set_up("lo")
            pod.set_up("eth0")
            pod.add_address("eth0", address, 32)
            pod.add_neighbour("eth0", GATEWAY, NODE_MAC)
            pod.add_route(f"{GATEWAY}/32", dev="eth0")
            pod.add_route("default", via=GATEWAY, dev="eth0")
        _write_sysctls({**_DEFAULT_SYSCTLS, **sysctls})

    def _node(self) -> Netlink:
        if self._netlink is None:
            raise RuntimeFault("pod network is closed", "FAILED_PRECONDITION")
        return self._netlink

    def _allocate(self, sandbox_id: str) -> str:
        with self._lock:
            address = plan_address(self.pod_cidr, self._addresses, self._state.last)
            self._addresses[address] = sandbox_id
            self._state.last = address
            write_atomically(self._file, msgspec.json.encode(self._state))
            return address

    def release(self, sandbox_id: str, address: str, link: str) -> None:
        """Disconnect a pod and free its address. Idempotent.

        The link itself goes with the pod's namespace, in the background: deleting it here would wait for the kernel's
        grace periods, some 30 ms a pod and one pod after the other.
        """
        with self._lock:
            if link and address:
                with suppress(OSError):
                    self._node().delete_route(f"{address}/32", dev=link, missing_ok=True)
            if self._addresses.get(address) == sandbox_id:
                del self._addresses[address]

    def statistics(self, link: str) -> tuple[int, int, int, int]:
        """(rx bytes, rx errors, tx bytes, tx errors) as the pod sees them."""
        with self._lock:
            received, received_errors, sent, sent_errors = self._node().statistics(link)
        return sent, sent_errors, received, received_errors


def _write_sysctls(sysctls: Mapping[str, str]) -> None:
    """Set sysctls in the namespaces of the calling thread."""
    for name, value in sysctls.items():
        path = Path("/proc/sys") / name.replace("/", ".").replace(".", "/")
        try:
            path.write_text(value)
        except OSError as error:
            if name in _DEFAULT_SYSCTLS:  # comfort, not a promise: an old kernel may lack it
                continue
            raise BadConfig(f'sysctl "{name}" cannot be set to "{value}": {error.strerror}') from error
