"""nftables text for Services: what a table holds, and the smallest transaction from one state to another.

Pure. Dispatch is one verdict-map lookup per packet however many Services exist; the choice among endpoints is a random
number into a map. Source of the behaviour: the documentation of virtual IPs and service proxies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

MASQUERADE_MARK = "0x4000"


@dataclass(frozen=True)
class Endpoint:
    """Where a connection may go. `local`: the pod runs on this machine."""

    ip: str
    port: int
    local: bool = False


@dataclass(frozen=True)
class ServicePort:
    """One port of one Service, with the endpoints that may be used now (sorted)."""

    name: str  # namespace/service:port
    cluster_ip: str
    protocol: str  # tcp, udp, sctp
    port: int
    endpoints: tuple[Endpoint, ...] = ()
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    affinity_seconds: int = 0
    restricted_ips: tuple[str, ...] = ()  # of external_ips: only `sources` may use them
    sources: tuple[str, ...] = ()
    internal_local: bool = False  # only endpoints of this machine serve the cluster IP
    external_local: bool = False  # … and connections that come from outside the cluster
    local_endpoints: tuple[Endpoint, ...] = ()  # those of this machine; empty unless one of the two asks for them

    @property
    def id(self) -> str:
        """A chain suffix: stable, short, legal in nft."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    @property
    def wants_local(self) -> bool:
        """Whether some connections may only go to endpoints of this machine."""
        return self.internal_local or self.external_local

    @property
    def all_endpoints(self) -> tuple[Endpoint, ...]:
        """Whatever a connection may be sent to."""
        return tuple(dict.fromkeys((*self.endpoints, *self.local_endpoints)))

    @property
    def is_restricted(self) -> bool:
        """Whether some address of it is closed to most."""
        return any(ip in self.restricted_ips for ip in self.external_ips)

    @property
    def addresses(self) -> tuple[str, ...]:
        """`ip . proto . port` elements by which connections are recognised."""
        return tuple(f"{ip} . {self.protocol} . {self.port}" for ip in (self.cluster_ip, *self.external_ips))


@dataclass(frozen=True)
class Choice:
    """A way to choose among endpoints, and the prefixes of what it needs in the table."""

    chain: str
    sticky: str
    target: str
    local: bool

    def of(self, service: ServicePort) -> tuple[Endpoint, ...]:
        """The endpoints to choose from."""
        return service.local_endpoints if self.local else service.endpoints

    def wanted(self, service: ServicePort) -> bool:
        """Whether the Service needs it."""
        return service.wants_local or not self.local


ANY = Choice("ep", "st", "to", False)
LOCAL = Choice("lo", "sl", "tl", True)


@dataclass(frozen=True)
class TableConfig:
    """Name of the table and the networks that decide about masquerading."""

    table: str
    cluster_cidr: str
    service_cidr: str
    underlay_cidr: str
    host: bool = False


def base(config: TableConfig) -> str:
    """A fresh, empty table: dispatch, masquerading, rejection of Services without endpoints. Replaces an old one."""
    inside = f"{config.cluster_cidr}, {config.underlay_cidr}"
    # Machines hide pods behind their own address; the host hides machines. Inside the cluster there is no NAT.
    source = config.underlay_cidr if config.host else config.cluster_cidr
    return f"""\
table ip {config.table} {{}}
delete table ip {config.table}
table ip {config.table} {{
 map service_ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
 map node_ports {{ type inet_proto . inet_service : verdict; }}
 map no_endpoints {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
 map no_endpoint_node_ports {{ type inet_proto . inet_service : verdict; }}
 set hairpins {{ type ipv4_addr . ipv4_addr; }}
 chain mark_masquerade {{ meta mark set meta mark or {MASQUERADE_MARK}; }}
 chain refuse {{ reject; }}
 chain services {{
  ip daddr . meta l4proto . th dport vmap @service_ips
  fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @node_ports
 }}
 chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}
 chain output {{ type nat hook output priority -100; policy accept; jump services; }}
 chain postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  meta mark & {MASQUERADE_MARK} != 0 meta mark set meta mark xor {MASQUERADE_MARK} masquerade fully-random
  ip saddr . ip daddr @hairpins masquerade fully-random
  ip saddr {source} ip daddr != {{ {inside} }} masquerade fully-random
 }}
 chain without_endpoints {{
  ip daddr . meta l4proto . th dport vmap @no_endpoints
  fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @no_endpoint_node_ports
 }}
 chain filter_forward {{ type filter hook forward priority -110; policy accept; ct state new jump without_endpoints; }}
 chain filter_input {{ type filter hook input priority -110; policy accept; ct state new jump without_endpoints; }}
 chain filter_output {{ type filter hook output priority -110; policy accept; ct state new jump without_endpoints; }}
 chain unknown {{ ct state new ip daddr {config.service_cidr} reject; }}
 chain unknown_forward {{ type filter hook forward priority -90; policy accept; jump unknown; }}
 chain unknown_output {{ type filter hook output priority -90; policy accept; jump unknown; }}
}}
"""


def _chain(table: str, service: ServicePort, kind: Choice) -> Iterable[str]:
    """The chain that sends a connection to one of the endpoints."""
    endpoints = kind.of(service)
    chain = f"{kind.chain}_{service.id}"
    yield f"add chain ip {table} {chain}"
    yield f"flush chain ip {table} {chain}"
    count = len(endpoints)
    if not count:
        return
    if service.affinity_seconds:
        numbered = list(enumerate(endpoints))
        for number, endpoint in numbered:
            sticky, target_chain = f"{kind.sticky}_{service.id}_{number}", f"{kind.target}_{service.id}_{number}"
            timeout = f"flags dynamic,timeout; timeout {service.affinity_seconds}s;"
            yield f"add set ip {table} {sticky} {{ type ipv4_addr; {timeout} }}"
            yield f"add chain ip {table} {target_chain}"
            yield f"flush chain ip {table} {target_chain}"
            target = f"meta l4proto {service.protocol} dnat to {endpoint.ip}:{endpoint.port}"
            yield f"add rule ip {table} {target_chain} update @{sticky} {{ ip saddr }} {target}"
        for number, _ in numbered:
            known = f"ip saddr @{kind.sticky}_{service.id}_{number}"
            yield f"add rule ip {table} {chain} {known} goto {kind.target}_{service.id}_{number}"
        choices = ", ".join(f"{number} : goto {kind.target}_{service.id}_{number}" for number, _ in numbered)
        yield f"add rule ip {table} {chain} numgen random mod {count} vmap {{ {choices} }}"
        return
    choices = ", ".join(f"{number} : {each.ip} . {each.port}" for number, each in enumerate(endpoints))
    random = f"numgen random mod {count} map {{ {choices} }}"
    yield f"add rule ip {table} {chain} meta l4proto {service.protocol} dnat ip addr . port to {random}"


def _entry(config: TableConfig, service: ServicePort) -> Iterable[str]:
    """The chains before it, which mark what must be masqueraded."""
    table, id_ = config.table, service.id
    yield f"add chain ip {table} cl_{id_}"
    yield f"flush chain ip {table} cl_{id_}"
    yield f"add rule ip {table} cl_{id_} ip saddr != {config.cluster_cidr} jump mark_masquerade"
    yield f"add rule ip {table} cl_{id_} goto {'lo' if service.internal_local else 'ep'}_{id_}"
    if _has_outer(service):
        yield f"add chain ip {table} np_{id_}"
        yield f"flush chain ip {table} np_{id_}"
        if service.external_local:
            # Pods and this machine are not outside: they may use every endpoint, whose answers must come back here.
            # Whoever is outside keeps its address.
            for inside in (f"ip saddr {config.cluster_cidr}", "fib saddr type local"):
                yield f"add rule ip {table} np_{id_} {inside} jump mark_masquerade"
                yield f"add rule ip {table} np_{id_} {inside} goto ep_{id_}"
            yield f"add rule ip {table} np_{id_} goto lo_{id_}"
        else:
            yield f"add rule ip {table} np_{id_} jump mark_masquerade"
            yield f"add rule ip {table} np_{id_} goto ep_{id_}"
    if service.is_restricted:
        yield f"add chain ip {table} lb_{id_}"
        yield f"flush chain ip {table} lb_{id_}"
        others = f"ip saddr != {{ {', '.join(service.sources)} }} " if service.sources else ""
        yield f"add rule ip {table} lb_{id_} {others}drop"
        yield f"add rule ip {table} lb_{id_} goto np_{id_}"


def _elements(service: ServicePort) -> Iterable[tuple[str, str, str]]:
    """(map, key, verdict) by which the Service is found.

    Where endpoints exist, but none that may be used, packets are dropped, as upstream: a refusal would say that the
    Service is down.
    """
    used, here = bool(service.endpoints), bool(service.local_endpoints)
    ips = (service.cluster_ip, *service.external_ips)
    for number, (ip, address) in enumerate(zip(ips, service.addresses, strict=True)):
        prefix = "cl" if number == 0 else "lb" if ip in service.restricted_ips else "np"
        local = service.internal_local if number == 0 else service.external_local
        if used and (here or not local or number):
            yield "service_ips", address, f"goto {prefix}_{service.id}"
        if not used or (local and not here):
            yield "no_endpoints", address, "drop" if used else "goto refuse"
    if service.node_port:
        key = f"{service.protocol} . {service.node_port}"
        if used:
            yield "node_ports", key, f"goto np_{service.id}"
        if not used or (service.external_local and not here):
            yield "no_endpoint_node_ports", key, "drop" if used else "goto refuse"


def _has_outer(service: ServicePort) -> bool:
    """Whether it is also found at addresses outside the cluster, by a chain of their own."""
    return bool(service.node_port or service.external_ips)


def without_conflicts(wanted: Mapping[str, ServicePort]) -> dict[str, ServicePort]:
    """Give an address that several Services claim to one of them: the kernel refuses a table with such a pair.

    Cluster IPs come before external IPs, which users may set to anything; among equals the first name wins.
    """
    taken = {each.addresses[0] for each in wanted.values()}
    found: dict[str, ServicePort] = {}
    for name in sorted(wanted):
        service = wanted[name]
        free = []
        for ip, address in zip(service.external_ips, service.addresses[1:], strict=True):
            if address not in taken:
                taken.add(address)
                free.append(ip)
        node_port = f"{service.protocol} . {service.node_port}"
        kept = 0 if node_port in taken else service.node_port
        taken.add(node_port)
        unchanged = kept == service.node_port and len(free) == len(service.external_ips)
        found[name] = service if unchanged else replace(service, external_ips=tuple(free), node_port=kept)
    return found


def _hairpins(services: Iterable[ServicePort]) -> set[str]:
    return {each.ip for service in services for each in service.all_endpoints if each.local}


def _affinity_leftovers(table: str, old: ServicePort, new: ServicePort | None) -> Iterable[str]:
    for kind in (ANY, LOCAL):
        if not (old.affinity_seconds and kind.wanted(old)):
            continue
        kept = new is not None and new.affinity_seconds and kind.wanted(new)
        for number in range(len(kind.of(new)) if kept and new is not None else 0, len(kind.of(old))):
            yield f"flush chain ip {table} {kind.target}_{old.id}_{number}"
            yield f"delete chain ip {table} {kind.target}_{old.id}_{number}"
            yield f"delete set ip {table} {kind.sticky}_{old.id}_{number}"


def transaction(
    config: TableConfig, old: Mapping[str, ServicePort], new: Mapping[str, ServicePort], *, fresh: bool = False
) -> str:
    """The text that takes the table from `old` to `new`; with `fresh`, from whatever it is. "" when nothing changes."""
    table = config.table
    before = {} if fresh else old
    removed = [service for name, service in before.items() if name not in new]
    changed = [(before.get(name), service) for name, service in new.items() if before.get(name) != service]
    gone: dict[str, list[str]] = {}
    added: dict[str, list[str]] = {}
    chains: list[str] = []
    cleanup: list[str] = []
    for service in removed:
        for name, key, _ in _elements(service):
            gone.setdefault(name, []).append(key)
        cleanup += _removal(table, service)
    for previous, service in changed:
        for name, key, _ in _elements(previous) if previous else ():
            gone.setdefault(name, []).append(key)
        for name, key, verdict in _elements(service):
            added.setdefault(name, []).append(f"{key} : {verdict}")
        chains += [line for kind in (ANY, LOCAL) if kind.wanted(service) for line in _chain(table, service, kind)]
        chains += _entry(config, service)
        if previous is not None:
            if previous.is_restricted and not service.is_restricted:
                cleanup += [f"{verb} chain ip {table} lb_{service.id}" for verb in ("flush", "delete")]
            if _has_outer(previous) and not _has_outer(service):
                cleanup += [f"{verb} chain ip {table} np_{service.id}" for verb in ("flush", "delete")]
            if previous.wants_local and not service.wants_local:
                cleanup += [f"{verb} chain ip {table} lo_{service.id}" for verb in ("flush", "delete")]
            cleanup += _affinity_leftovers(table, previous, service)
    local, was_local = _hairpins(new.values()), _hairpins(before.values())
    if was_local - local:
        gone["hairpins"] = [f"{ip} . {ip}" for ip in sorted(was_local - local)]
    if local - was_local:
        added["hairpins"] = [f"{ip} . {ip}" for ip in sorted(local - was_local)]
    lines = [f"delete element ip {table} {name} {{ {', '.join(keys)} }}" for name, keys in gone.items()]
    lines += chains
    lines += [f"add element ip {table} {name} {{ {', '.join(keys)} }}" for name, keys in added.items()]
    lines += cleanup
    text = "\n".join(lines) + "\n" if lines else ""
    return base(config) + text if fresh else text


def _removal(table: str, service: ServicePort) -> Iterable[str]:
    """Chains that point to others go first."""
    prefixes = ["cl_", "np_", "ep_"] if _has_outer(service) else ["cl_", "ep_"]
    if service.wants_local:
        prefixes.append("lo_")
    if service.is_restricted:
        prefixes.insert(0, "lb_")
    for prefix in prefixes:
        yield f"flush chain ip {table} {prefix}{service.id}"
    for prefix in prefixes:
        yield f"delete chain ip {table} {prefix}{service.id}"
    yield from _affinity_leftovers(table, service, None)


def stale_udp(old: Mapping[str, ServicePort], new: Mapping[str, ServicePort]) -> list[tuple[str, int, str]]:
    """(service ip, port, endpoint ip) of UDP flows whose endpoint is gone: the kernel would keep sending them there."""
    found = []
    for name, before in old.items():
        if before.protocol == "udp":
            now = {each.ip for each in new[name].all_endpoints} if name in new else set()
            found += [(before.cluster_ip, before.port, each.ip) for each in before.all_endpoints if each.ip not in now]
    return found
