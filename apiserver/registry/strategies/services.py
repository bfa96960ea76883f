"""Services: families, cluster IPs and node ports, and what survives a change of type.

Owns the plan of allocation; the allocators own which values are free. Looked up through `strategy_for`; the application
sets `allocators` before it serves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from apiserver.registry.allocators import AllocationError, ServiceAllocators, addresses_of, canonical, ports_of
from apiserver.registry.defaults.network import default_service
from apiserver.registry.strategy import Finish, Rules, Strategy
from apiserver.registry.validation.metadata import Passes
from apiserver.registry.validation.names import dns_label
from apiserver.registry.validation.service import (
    is_headless,
    needs_address,
    needs_health_port,
    needs_node_ports,
    service_warnings,
    validate_service,
    validate_service_status,
    validate_service_update,
)
from apiserver.storage.entry import DELETED, Selection
from machinery.errors import Expired, InternalError
from machinery.field_errors import FieldError, invalid

if TYPE_CHECKING:
    from api.resources import Resource
    from apiserver.registry.store import Registry, RequestContext
    from apiserver.storage.cache import ResourceCache

Obj = dict[str, Any]


def _spec(name: str, default: str = "") -> Any:
    return lambda obj: str((obj.get("spec") or {}).get(name) or default)


def connect_allocators(registry: Registry, service_range: str) -> ServiceAllocators:
    """Let the service strategy allocate from the range, knowing the services that are stored.

    Called once by the application, before anything is written.
    """
    store = registry.resource("", "v1", "services")
    strategy = store.strategy
    if not isinstance(strategy, ServiceStrategy):
        raise TypeError("services are served by another strategy")
    stored = _StoredServices(registry, store.cache)
    ranges = registry.resource("networking.k8s.io", "v1", "servicecidrs").cache

    known: tuple[int, dict[str, bool]] = (-1, {})

    def ready() -> dict[str, bool]:
        """Asked for at every write of a Service, read again when a range has changed."""
        nonlocal known
        if known[0] != ranges.modified:
            found: dict[str, bool] = {}
            for entry in ranges.select(Selection()):
                each = entry.decoded()
                for cidr in each["spec"]["cidrs"]:
                    found[cidr] = found.get(cidr, False) or _is_ready(each)
            known = ranges.modified, found
        return known[1]

    strategy.allocators = ServiceAllocators(service_range, services=stored, ranges=ready)
    return strategy.allocators


def _is_ready(service_cidr: Obj) -> bool:
    """As upstream: one that nobody has judged yet is, one that is being deleted is not."""
    conditions = (service_cidr.get("status") or {}).get("conditions") or ()
    told = next((each["status"] == "True" for each in conditions if each["type"] == "Ready"), True)
    return told and not service_cidr["metadata"].get("deletionTimestamp")


class _StoredServices:
    """What the watch cache has of services."""

    def __init__(self, registry: Registry, cache: ResourceCache) -> None:
        self._registry = registry
        self._cache = cache
        self._all = Selection()

    def everything(self) -> tuple[int, Iterator[tuple[tuple[str, str], Obj]]]:
        found = ((entry.key, entry.decoded()) for entry in self._cache.select(self._all))
        return self._registry.feed.revision, found

    def since(self, revision: int) -> list[tuple[int, tuple[str, str], Obj | None]] | None:
        try:
            events = self._cache.events_after(revision, self._all)
        except Expired:
            return None
        return [
            (event.resource_version, event.key, None if event.type == DELETED else msgspec.json.decode(event.raw))
            for event in events
        ]


class ServiceStrategy(Strategy):
    """v1 Service."""

    rules = Rules(
        has_status=True,
        name=dns_label,
        new_status={"loadBalancer": {}},
        allow_create_on_update=True,
        default=default_service,
        passes=Passes(2, 1),
        validate=validate_service,
        validate_update=validate_service_update,
        validate_status=validate_service_status,
        warnings=service_warnings,
        fields={"spec.clusterIP": _spec("clusterIP"), "spec.type": _spec("type")},
    )

    def __init__(self, resource: Resource, rules: Rules | None = None) -> None:
        super().__init__(resource, rules)
        self.allocators = ServiceAllocators()

    def prepare_create(self, ctx: RequestContext, obj: Obj) -> None:
        super().prepare_create(ctx, obj)
        spec = obj["spec"]
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]

    def begin_create(self, ctx: RequestContext, obj: Obj) -> Finish | None:
        return self._allocate(obj, None)

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        super().prepare_update(ctx, new, old)
        after, before = new["spec"], old["spec"]
        _normalize_addresses(after, before)
        _keep_allocated(after, before)
        _drop_for_type(after, before)
        if before.get("type") == "LoadBalancer" and after.get("type") != "LoadBalancer":
            new["status"] = {"loadBalancer": {}}

    def begin_update(self, ctx: RequestContext, new: Obj, old: Obj) -> Finish | None:
        return self._allocate(new, old)

    def after_delete(self, obj: Obj) -> None:
        self.allocators.load()
        self._release(addresses_of(obj), ports_of(obj))

    def _release(self, addresses: list[str], ports: list[int]) -> None:
        self.allocators.give_back((*addresses, *ports))

    def _allocate(self, new: Obj, old: Obj | None) -> Finish:
        """Reserve all that is new; the result gives back the new or the old values."""
        self.allocators.load()
        held_addresses = addresses_of(old) if old else []
        held_ports = ports_of(old) if old else []
        got_addresses: list[str] = []
        got_ports: list[int] = []
        spec = new["spec"]
        findings = _plan_families(spec, old["spec"] if old else None, self.allocators.addresses.family)
        if not findings:
            findings = self._take_address(spec, held_addresses, got_addresses)
        if not findings:
            try:
                findings = self._take_ports(spec, held_ports if old else None, got_ports)
            except InternalError:
                self._release(got_addresses, got_ports)
                raise
        if findings:
            self._release(got_addresses, got_ports)
            raise invalid("Service", new["metadata"].get("name", ""), "", findings)
        meta = new["metadata"]
        self.allocators.note((meta.get("namespace") or "", meta.get("name") or ""), (*got_addresses, *got_ports))

        def finish(done: bool) -> None:
            if not done:
                self._release(got_addresses, got_ports)
            elif old is not None:
                kept, kept_ports = addresses_of(new), ports_of(new)
                self._release(
                    [address for address in held_addresses if address not in kept],
                    [port for port in held_ports if port not in kept_ports],
                )

        return finish

    def _take_address(self, spec: Obj, held: list[str], got: list[str]) -> list[FieldError]:
        if not needs_address(spec) or is_headless(spec):
            return []
        addresses = self.allocators.addresses
        wanted = spec.get("clusterIPs") or []
        try:
            if not wanted:
                address = addresses.next()
                got.append(address)
                spec["clusterIP"], spec["clusterIPs"] = address, [address]
            for address in map(canonical, wanted):
                if address not in held:
                    addresses.reserve(address)
                    got.append(address)
        except AllocationError as error:
            return [FieldError.invalid("spec.clusterIPs", wanted, str(error))]
        return []

    def _take_ports(self, spec: Obj, held: list[int] | None, got: list[int]) -> list[FieldError]:
        """`held`: by the service until now; None when it is new."""
        if spec.get("type") in ("NodePort", "LoadBalancer"):
            take = self._take_new if held is None else self._take_changed
            for index, port in enumerate(spec.get("ports") or ()):
                try:
                    take(port, spec, held or [], got)
                except AllocationError as error:
                    path = f"spec.ports[{index}].nodePort"
                    return [FieldError.invalid(path, port.get("nodePort") or 0, str(error))]
        if needs_health_port(spec):
            self._take_health_port(spec, held or [], got)
        return []

    def _take_new(self, port: Obj, spec: Obj, held: list[int], got: list[int]) -> None:
        """The entries of one port (TCP and UDP) share a number; no others may have the same."""
        own = port.get("nodePort")
        before = itertools.takewhile(lambda each: each is not port, spec["ports"])
        shared = next((each["nodePort"] for each in before if _same_port(each, port) and each.get("nodePort")), None)
        if shared is not None and own in (None, 0, shared):
            port["nodePort"] = shared
            return
        if not own and needs_node_ports(spec):
            asked = (each["nodePort"] for each in spec["ports"] if _same_port(each, port) and each.get("nodePort"))
            own = next(asked, None)
            port["nodePort"] = own or self.allocators.ports.next()
        if own:
            self.allocators.ports.reserve(own)
        if port.get("nodePort"):
            got.append(port["nodePort"])

    def _take_changed(self, port: Obj, spec: Obj, held: list[int], got: list[int]) -> None:
        own = port.get("nodePort")
        if not own and needs_node_ports(spec):
            port["nodePort"] = self.allocators.ports.next()
            got.append(port["nodePort"])
        elif own and own not in held and own not in got:
            self.allocators.ports.reserve(own)
            got.append(own)

    def _take_health_port(self, spec: Obj, held: list[int], got: list[int]) -> None:
        """Raises InternalError: upstream has no finding for this port."""
        ports, health = self.allocators.ports, spec.get("healthCheckNodePort")
        try:
            if not health:
                spec["healthCheckNodePort"] = taken = ports.next()
                got.append(taken)
            elif health not in held:
                ports.reserve(health)
                got.append(health)
        except AllocationError as error:
            which = f"requested HealthCheck NodePort {health}" if health else "a HealthCheck NodePort 0"
            raise InternalError.of(f"failed to allocate {which}: {error}") from error


def _same_port(one: Obj, other: Obj) -> bool:
    return bool(one.get("port") == other.get("port"))


def _plan_families(spec: Obj, old: Obj | None, family: str) -> list[FieldError]:
    """ipFamilies and ipFamilyPolicy on a single-stack cluster."""
    if not needs_address(spec):
        return []
    policy, families = spec.get("ipFamilyPolicy"), spec.get("ipFamilies") or []
    errors: list[FieldError] = []
    open_headless = is_headless(spec) and not spec.get("selector")
    if not open_headless:
        if policy == "RequireDualStack":
            detail = "this cluster is not configured for dual-stack services"
            errors.append(FieldError.invalid("spec.ipFamilyPolicy", policy, detail))
        for index, given in enumerate(families):
            if given != family:
                detail = "not configured on this cluster"
                errors.append(FieldError.invalid(f"spec.ipFamilies[{index}]", given, detail))
    if errors:
        return errors
    if open_headless and not policy and not families:
        # Nobody selects endpoints for it, so it may have both families even here.
        spec["ipFamilies"] = [family, "IPv6" if family == "IPv4" else "IPv4"]
        spec["ipFamilyPolicy"] = "RequireDualStack"
    else:
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        if not families:
            spec["ipFamilies"] = [family]
    if is_headless(spec):
        spec["clusterIPs"] = ["None"]
    return []


def _normalize_addresses(after: Obj, before: Obj) -> None:
    """A changed or cleared clusterIP carries clusterIPs with it."""
    address, was = after.get("clusterIP"), before.get("clusterIP")
    if not after.get("clusterIPs") and address and address != was:
        after["clusterIPs"] = [address]
    elif address != was and after.get("clusterIPs") == before.get("clusterIPs"):
        if address:
            after["clusterIPs"] = [address]
        elif was:
            after.pop("clusterIPs", None)


def _keep_allocated(after: Obj, before: Obj) -> None:
    """What the client left out stays what it was."""
    if needs_address(before) and needs_address(after):
        if not after.get("clusterIP") and before.get("clusterIP"):
            after["clusterIP"] = before["clusterIP"]
        if (
            not after.get("clusterIPs")
            and after.get("clusterIP") == before.get("clusterIP")
            and before.get("clusterIPs")
        ):
            after["clusterIPs"] = before["clusterIPs"]
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if not after.get(field) and before.get(field):
                after[field] = before[field]
    if needs_node_ports(before) and needs_node_ports(after):
        known = {(port.get("protocol"), port.get("port")): port.get("nodePort") for port in before.get("ports") or ()}
        used = {port.get("nodePort") for port in after.get("ports") or ()}
        for port in after.get("ports") or ():
            number = known.get((port.get("protocol"), port.get("port")))
            if not port.get("nodePort") and number and number not in used:
                port["nodePort"] = number
    if needs_health_port(before) and needs_health_port(after) and not after.get("healthCheckNodePort"):
        after["healthCheckNodePort"] = before.get("healthCheckNodePort") or 0


def _drop_for_type(after: Obj, before: Obj) -> None:
    """Values that only made sense for the old type go, unless the client changed them."""

    def drop(*fields: str) -> None:
        for field in fields:
            if field in after and after[field] == before.get(field):
                del after[field]

    if needs_address(before) and not needs_address(after):
        drop("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy")
    if needs_node_ports(before) and not needs_node_ports(after):
        numbers = [port.get("nodePort") for port in before.get("ports") or ()]
        if [port.get("nodePort") for port in after.get("ports") or ()] == numbers:
            for port in after.get("ports") or ():
                port.pop("nodePort", None)
    if needs_health_port(before) and not needs_health_port(after):
        drop("healthCheckNodePort")
    if before.get("type") == "LoadBalancer" and after.get("type") != "LoadBalancer":
        drop("allocateLoadBalancerNodePorts", "loadBalancerClass")
    external = ("NodePort", "LoadBalancer")
    if before.get("type") in external and after.get("type") not in external and not after.get("externalIPs"):
        drop("externalTrafficPolicy")
