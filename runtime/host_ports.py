"""hostPort: connections to a port of the machine that belong to a pod, by nftables.

Owns one table in the machine's network namespace, rewritten as a whole in one transaction whenever a pod with host
ports comes or goes. Called by the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from machinery.log import get, kv
from proto.cri.v1 import cri_pb2 as cri
from runtime.child import PIPE, Child, read_all
from runtime.faults import BadConfig, RuntimeFault

TABLE = "nanokube-hostports"
TIMEOUT = 10.0
_PROTOCOLS = {cri.TCP: "tcp", cri.UDP: "udp", cri.SCTP: "sctp"}
log = get("runtime.hostports")


@dataclass(frozen=True, order=True)
class HostPort:
    """One forwarded port."""

    protocol: str
    port: int
    address: str
    pod_port: int
    host_ip: str = ""


def plan_host_ports(address: str, mappings: Iterable[cri.PortMapping]) -> list[HostPort]:
    """The host ports of a pod with its own network. Pure; raises BadConfig."""
    found = []
    for each in mappings:
        if each.host_port == 0 or not address:
            continue
        if not (0 < each.host_port < 65536 and 0 < each.container_port < 65536):
            raise BadConfig(f"host port {each.host_port} to {each.container_port} is out of range")
        everywhere = each.host_ip in ("", "0.0.0.0", "::")
        if ":" in each.host_ip and not everywhere:
            continue
        host_ip = "" if everywhere else each.host_ip
        found.append(HostPort(_PROTOCOLS[each.protocol], each.host_port, address, each.container_port, host_ip))
    return found


def plan_ruleset(ports: Iterable[HostPort]) -> str:
    """The whole table as an nft script. Pure."""
    rules, hairpins = [], set()
    for each in sorted(ports):
        only = f"ip daddr {each.host_ip} " if each.host_ip else ""
        rules.append(f"{only}{each.protocol} dport {each.port} dnat to {each.address}:{each.pod_port}")
        hairpins.add(f"ip saddr {each.address} ip daddr {each.address} ct status dnat masquerade")
    body = "\n".join
    return f"""table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
chain ports {{
{body(rules)}
}}
chain prerouting {{
type nat hook prerouting priority dstnat;
fib daddr type local jump ports
}}
chain output {{
type nat hook output priority -100;
ip daddr != 127.0.0.0/8 fib daddr type local jump ports
}}
chain postrouting {{
type nat hook postrouting priority srcnat;
{body(sorted(hairpins))}
}}
}}
"""


class HostPorts:
    """The host ports of all pods of the node."""

    def __init__(self) -> None:
        self._ports: dict[str, list[HostPort]] = {}
        self._lock = asyncio.Lock()

    def adopt(self, sandbox_id: str, ports: list[HostPort]) -> None:
        """Know of a pod whose rules an earlier process made."""
        if ports:
            self._ports[sandbox_id] = ports

    async def add(self, sandbox_id: str, ports: list[HostPort]) -> None:
        """Forward a pod's host ports."""
        if ports:
            self._ports[sandbox_id] = ports
            try:
                await self._apply()
            except BaseException:
                self._ports.pop(sandbox_id, None)
                raise
            log.info("Forwarded host ports", extra=kv(id=sandbox_id[:12], ports=[each.port for each in ports]))

    async def remove(self, sandbox_id: str) -> None:
        """Stop forwarding a pod's host ports. Idempotent."""
        if self._ports.pop(sandbox_id, None) is not None:
            await self._apply()

    async def _apply(self) -> None:
        async with self._lock:
            script = plan_ruleset(port for ports in self._ports.values() for port in ports)
            try:
                child = Child(["nft", "-f", "-"], stdin=PIPE, stderr=PIPE)
            except FileNotFoundError as error:
                raise RuntimeFault("host ports need nft (package nftables)", "FAILED_PRECONDITION") from error
            try:
                async with asyncio.timeout(TIMEOUT):
                    if child.stdin is not None:
                        await child.stdin.write(script.encode())
                        child.stdin.close()
                    errors = await read_all(child.stderr, 4096)
                    code = await child.wait()
            finally:
                await child.finish(1.0)
            if code:
                raise RuntimeFault(f"host ports cannot be forwarded: {errors.decode(errors='replace').strip()}")
