"""Service cluster IPs and node ports: which are taken, which is next.

Owns an in-memory index per kind of value, rebuilt from the stored services when first needed, and reservations that a
write keeps or gives back. Never persists anything: `service_store` does, and learns when another API server was faster,
for its services are known here only when the watch cache has them. Safe for concurrent requests in one API server
because every step runs in one event loop without waiting. Called by the service strategy.
"""

import contextlib
import ipaddress
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

Obj = dict[str, Any]
MISMATCH = "failed to allocate IP {}: the provided network does not match the current range"


class AllocationError(ValueError):
    """A value cannot be had; the text is upstream's."""


class PortAllocator:
    """Node ports; a number is one Service's, whatever the protocol. Random ones come from above the static band."""

    def __init__(self, low: int = 30000, high: int = 32767, rng: random.Random | None = None) -> None:
        self.low, self.high = low, high
        self._rng = rng or random.Random()
        self._taken: set[int] = set()
        size = high - low + 1
        self._static = min(max(16, size // 32), 128) if size > 16 else 0

    def clear(self) -> None:
        """Forget everything."""
        self._taken.clear()

    def hold(self, port: int) -> None:
        """Take note of a stored service's port."""
        self._taken.add(port)

    def reserve(self, port: int) -> None:
        """Take this very port."""
        if not self.low <= port <= self.high:
            valid = f"The range of valid ports is {self.low}-{self.high}"
            raise AllocationError(f"provided port is not in the valid range. {valid}")
        if port in self._taken:
            raise AllocationError("provided port is already allocated")
        self.hold(port)

    def next(self) -> int:
        """A port that is free; it is taken."""
        for low, high in ((self.low + self._static, self.high), (self.low, self.low + self._static - 1)):
            size = high - low + 1
            if size <= 0:
                continue
            start = self._rng.randrange(size)
            for step in range(size):
                port = low + (start + step) % size
                if port not in self._taken:
                    self.hold(port)
                    return port
        raise AllocationError("range is full")

    def release(self, port: int) -> None:
        """Give a port back."""
        self._taken.discard(port)


class AddressAllocator:
    """Cluster IPs of one range. Random ones come from above the static band."""

    def __init__(self, cidr: str = "10.96.0.0/16", rng: random.Random | None = None) -> None:
        self.network = ipaddress.ip_network(cidr)
        self._rng = rng or random.Random()
        self._base = int(self.network.network_address)
        # First and (IPv4) last address are no hosts; ranges beyond 2^16 are cut as upstream cuts them.
        self._size = min(self.network.num_addresses, 1 << 16) - (2 if self.network.version == 4 else 1)
        self._static = min(max(16, self._size // 16), 256) if self._size > 16 else 0
        self._taken: set[int] = set()

    @property
    def family(self) -> str:
        """`IPv4` or `IPv6`."""
        return f"IPv{self.network.version}"

    def clear(self) -> None:
        """Forget everything."""
        self._taken.clear()

    def hold(self, address: str) -> None:
        """Take note of a stored service's address."""
        self._taken.add(int(ipaddress.ip_address(address)))

    def reserve(self, address: str) -> None:
        """Take this very address."""
        parsed = ipaddress.ip_address(address)
        if parsed not in self.network:
            raise AllocationError(MISMATCH.format(address))
        offset = int(parsed) - self._base
        if not 1 <= offset <= self._size:
            raise AllocationError(
                f"failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {self.network}"
            )
        if int(parsed) in self._taken:
            raise AllocationError(f"failed to allocate IP {address}: provided IP is already allocated")
        self._taken.add(int(parsed))

    def next(self) -> str:
        """A free address; it is taken."""
        for low, high in ((1 + self._static, self._size), (1, self._static)):
            size = high - low + 1
            if size <= 0:
                continue
            start = self._rng.randrange(size)
            for step in range(size):
                number = self._base + low + (start + step) % size
                if number not in self._taken:
                    self._taken.add(number)
                    return str(ipaddress.ip_address(number))
        raise AllocationError("failed to allocate a serviceIP: range is full")

    def release(self, address: str) -> None:
        """Give an address back."""
        self._taken.discard(int(ipaddress.ip_address(address)))


class AddressRanges:
    """Cluster IPs of the range that the server was started with and of those that ServiceCIDR objects add.

    Ranges may overlap; an address is taken in all of them. Only ranges that are ready give addresses out.
    """

    def __init__(self, cidr: str, rng: random.Random | None = None) -> None:
        self._rng = rng
        self._cidr = cidr
        self._ready: Mapping[str, bool] = {cidr: True}
        self._ranges = {cidr: AddressAllocator(cidr, rng)}

    @property
    def family(self) -> str:
        """`IPv4` or `IPv6`: of all ranges that count here."""
        return self._ranges[self._cidr].family

    def set_ranges(self, ready: Mapping[str, bool]) -> bool:
        """Which ranges there are, and which of them are ready. True: what is taken has to be told anew."""
        usable = {cidr: is_ready for cidr, is_ready in ready.items() if f"IPv{_version(cidr)}" == self.family}
        usable.setdefault(self._cidr, True)
        self._ready, same = usable, usable.keys() == self._ranges.keys()
        if not same:
            self._ranges = {cidr: AddressAllocator(cidr, self._rng) for cidr in sorted(usable, key=self._order)}
        return not same

    def _order(self, cidr: str) -> tuple[bool, str]:
        return cidr != self._cidr, cidr

    def _with(self, address: str) -> list[AddressAllocator]:
        parsed = ipaddress.ip_address(address)
        return [each for each in self._ranges.values() if parsed in each.network]

    def contains(self, address: str) -> bool:
        """Whether any range has it, ready or not."""
        return bool(self._with(address))

    def clear(self) -> None:
        """Forget everything that is taken."""
        for each in self._ranges.values():
            each.clear()

    def hold(self, address: str) -> None:
        """Take note of a stored service's address."""
        for each in self._with(address):
            each.hold(address)

    def reserve(self, address: str) -> None:
        """Take this very address."""
        parsed = ipaddress.ip_address(address)
        ready = [each for cidr, each in self._ranges.items() if self._ready[cidr] and parsed in each.network]
        if not ready:
            raise AllocationError(MISMATCH.format(address))
        ready[0].reserve(address)
        self.hold(address)

    def next(self) -> str:
        """A free address; it is taken."""
        for cidr, each in self._ranges.items():
            if self._ready[cidr]:
                with contextlib.suppress(AllocationError):  # full: the next one
                    address = each.next()
                    self.hold(address)
                    return address
        raise AllocationError("failed to allocate a serviceIP: range is full")

    def release(self, address: str) -> None:
        """Give an address back."""
        for each in self._with(address):
            each.release(address)


def _version(cidr: str) -> int:
    return ipaddress.ip_network(cidr, strict=False).version


Key = tuple[str, str]  # namespace and name of a service
Value = str | int  # an address, or a node port


class Changes(Protocol):
    """The stored services, for whoever keeps an index of them."""

    def everything(self) -> tuple[int, Iterable[tuple[Key, Obj]]]:
        """All of them and the revision they are of."""

    def since(self, revision: int) -> list[tuple[int, Key, Obj | None]] | None:
        """Revision, key and service (None: deleted) of each change after `revision`; None when that is too long ago."""


class ServiceAllocators:
    """Both allocators, filled from the stored services at first use and kept up with them.

    Services that another API server writes come as changes; the own ones are noted at once, so that a value is never
    given twice before its change comes round.
    """

    def __init__(
        self,
        cidr: str = "10.96.0.0/16",
        node_ports: tuple[int, int] = (30000, 32767),
        services: Changes | None = None,
        rng: random.Random | None = None,
        ranges: Callable[[], Mapping[str, bool]] = dict,
    ) -> None:
        """`ranges`: the CIDRs of ServiceCIDR objects, and whether they are ready."""
        self.addresses = AddressRanges(cidr, rng)
        self._ranges = ranges
        self.ports = PortAllocator(*node_ports, rng=rng)
        self._services = services
        self._seen = -1  # the revision up to which changes are known
        self._stored: dict[Key, frozenset[Value]] = {}
        self._owner: dict[Value, Key] = {}
        self._learned: dict[Value, Key] = {}
        """Held by Services that the changes have not shown yet."""

    def load(self) -> None:
        """Know all that is stored by now."""
        if self.addresses.set_ranges(self._ranges()):
            self._seen = -1
        if self._services is None:
            return
        changes = self._services.since(self._seen) if self._seen >= 0 else None
        if changes is None:
            self.rebuild()
            return
        for revision, key, service in changes:
            self._seen = max(self._seen, revision)
            self._take_over(key, service)

    def rebuild(self) -> None:
        """Forget what is known and read the stored services again."""
        pending = {value: key for value, key in self._owner.items() if value not in self._stored.get(key, ())}
        self.addresses.clear()
        self.ports.clear()
        self._stored.clear()
        self._owner.clear()
        if self._services is not None:
            self._seen, services = self._services.everything()
            for key, service in services:
                self._take_over(key, service)
        for value, key in pending.items():  # given by this server, and not seen in the store yet
            if value not in self._owner:
                self._hold(value)
                self._owner[value] = key

    def note(self, key: Key, values: Iterable[Value]) -> None:
        """The service is about to hold these values, which have been reserved."""
        for value in values:
            self._owner[value] = key

    def learn(self, values: Mapping[Value, Key]) -> None:
        """These values are other services', as the store has told; the services themselves come as changes."""
        for value, key in values.items():
            if value not in self._owner:
                self._hold(value)
                self._owner[value] = key
                self._learned[value] = key

    def unlearn(self) -> None:
        """Give back what was learnt of services that hold it no more, or never did."""
        learned, self._learned = self._learned, {}
        self.give_back(
            value
            for value, key in learned.items()
            if self._owner.get(value) == key and value not in self._stored.get(key, ())
        )

    def give_back(self, values: Iterable[Value]) -> None:
        """These values are free."""
        for value in values:
            self._owner.pop(value, None)
            if isinstance(value, str):
                self.addresses.release(value)
            else:
                self.ports.release(value)

    def _take_over(self, key: Key, service: Obj | None) -> None:
        before = self._stored.pop(key, frozenset())
        after = self.values_of(service) if service is not None else frozenset()
        if after:
            self._stored[key] = after
        for value in after:
            if value not in self._owner:
                self._hold(value)
            self._owner[value] = key
        self.give_back(value for value in before - after if self._owner.get(value) == key)

    def _hold(self, value: Value) -> None:
        if isinstance(value, str):
            self.addresses.hold(value)
        else:
            self.ports.hold(value)

    def values_of(self, service: Obj) -> frozenset[Value]:
        """What a stored service holds of the values given out here."""
        held = {each for each in addresses_of(service) if self.addresses.contains(each)}
        return frozenset((*held, *ports_of(service)))


def canonical(address: str) -> str:
    """The one way in which an address is written that may be written in several; what is none stays as it is."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def addresses_of(service: Obj) -> list[str]:
    """The cluster IPs a stored service holds, in their canonical form."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return []
    found = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [canonical(address) for address in found if address and address != "None"]


def ports_of(service: Obj) -> list[int]:
    """The node ports a stored service holds, each once."""
    spec = service.get("spec") or {}
    found = [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]
    if health := spec.get("healthCheckNodePort"):
        found.append(health)
    return list(dict.fromkeys(found))
