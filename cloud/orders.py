"""Machines that are ordered one by one: what may be launched where and at what price, and the orders for it.

Owns offerings (instance type x zone x capacity type), outages, and the refusals of such orders. No I/O; `cloud.core`
brings about what is planned here, with the same machinery as for groups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from cloud.core import Core
from cloud.model import (
    FAILURES,
    MACHINES,
    MAX_REAL,
    ON_DEMAND,
    SPOT,
    SPOT_FACTOR,
    ZONES,
    Fault,
    Group,
    Instance,
    InstanceType,
    Outage,
    SingleOrder,
)
from cloud.requests import LABEL_KEY, LABEL_VALUE, MAX_SIZE
from machinery.errors import BadRequest, NotFound

PREFIX = "machine"
_EFFECTS = frozenset({"NoSchedule", "PreferNoSchedule", "NoExecute"})
_FOREVER = 1e9


@dataclass(frozen=True)
class Wanted:
    """An offering by its name."""

    type: str
    zone: str
    capacity_type: str


@dataclass(frozen=True)
class Offer:
    """`price`: dollars per hour; `available`: whether there is capacity now."""

    type: InstanceType
    zone: str
    capacity_type: str
    price: float
    available: bool

    def as_group(self, hollow: bool) -> Group:
        """A group of which one such machine would be, for its template."""
        spot = self.capacity_type == SPOT
        return Group(MACHINES, self.type.name, 0, 1, 1, PREFIX, hollow=hollow, spot=spot, zones=[self.zone])


class Orders:
    """The verbs, over one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def machines(self) -> list[Instance]:
        """All that were ordered, until they are gone."""
        return [each for each in self._core.state.of(MACHINES) if each.order is not None and each.phase != "gone"]

    # ---- what there is ----

    def offers(self, now: float) -> list[Offer]:
        """Every type in every zone, on demand and as spot."""
        return [
            self._offer(kind, zone, capacity_type, now)
            for kind in self._core.state.types.values()
            for zone in ZONES
            for capacity_type in (ON_DEMAND, SPOT)
        ]

    def _offer(self, kind: InstanceType, zone: str, capacity_type: str, now: float) -> Offer:
        price = kind.pricePerHour * (SPOT_FACTOR if capacity_type == SPOT else 1.0)
        available = not any(each.covers(kind.name, zone, capacity_type) for each in self.outages(now))
        return Offer(kind, zone, capacity_type, round(price, 6), available)

    def outages(self, now: float) -> list[Outage]:
        """Those that last."""
        state = self._core.state
        state.outages = [each for each in state.outages if each.until is None or each.until > now]
        return state.outages

    # ---- orders ----

    def launch(
        self, order: SingleOrder, wanted: Sequence[Wanted], *, hollow: bool, now: float, taken: Collection[str] = ()
    ) -> tuple[Instance | None, list[Wanted]]:
        """Order the first of these that can be had; what could not be had. Asked again with the same token, it is the
        same machine. Raises BadRequest. `taken`: names of machines that exist."""
        for known in self.machines:
            if known.order is not None and known.order.token == order.token:
                return known, []
        self._check(order, wanted)
        refused: list[Wanted] = []
        instances = self._core.state.instances.values()
        there = sum(one.exists or one.counts for one in instances if one.hollow == hollow)
        room = there < (MAX_SIZE if hollow else MAX_REAL)
        for each in wanted:
            offer = self._offer(self._core.state.types[each.type], each.zone, each.capacity_type, now)
            if offer.available and room and not self._out_of_capacity():
                return self._create(order, offer, hollow, now, taken), refused
            refused.append(each)
        return None, refused

    def _out_of_capacity(self) -> bool:
        fault = self._core.state.machineFault
        if fault.mode != "out-of-capacity" or not fault.count:
            return False
        fault.count -= fault.count > 0
        return True

    def _check(self, order: SingleOrder, wanted: Iterable[Wanted]) -> None:
        if not order.token or len(order.token) > 100:
            raise BadRequest("an order needs a token")
        if not 0 <= order.bootDelay < _FOREVER:
            raise BadRequest("delays must be a positive number of seconds")
        for key, value in order.labels.items():
            if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
                raise BadRequest(f"label {key}={value} cannot be set on nodes of this cloud")
        for taint in order.taints:
            known = taint.effect in _EFFECTS and LABEL_KEY.fullmatch(taint.key) and LABEL_VALUE.fullmatch(taint.value)
            if not known:
                raise BadRequest(f"taint {taint} is none")
        listed = list(wanted)
        if not listed:
            raise BadRequest("an order needs at least one offering")
        for each in listed:
            if each.type not in self._core.state.types:
                raise BadRequest(f'instance type "{each.type}" not found')
            if each.zone not in ZONES or each.capacity_type not in (ON_DEMAND, SPOT):
                raise BadRequest(f"nothing is offered as {each.capacity_type!r} in zone {each.zone!r}")

    def _create(self, order: SingleOrder, offer: Offer, hollow: bool, now: float, taken: Collection[str]) -> Instance:
        state = self._core.state
        while f"{PREFIX}-{state.nextMachine}" in state.instances or f"{PREFIX}-{state.nextMachine}" in taken:
            state.nextMachine += 1
        fault = state.machineFault
        mode = fault.mode if fault.count and fault.mode != "out-of-capacity" else ""
        if mode and fault.count > 0:
            fault.count -= 1
        made = Instance(
            name=f"{PREFIX}-{state.nextMachine}",
            group=MACHINES,
            type=offer.type.name,
            zone=offer.zone,
            price=offer.price,
            created=now,
            fault=mode,
            dieAt=fault.after if mode == "dies" else None,
            hollow=hollow,
            spot=offer.capacity_type == SPOT,
            order=order,
        )
        state.nextMachine += 1
        state.instances[made.name] = made
        return made

    def terminate(self, name: str) -> None:
        """Take one away. Raises NotFound when it is gone, or was not ordered by itself."""
        found = next((each for each in self.machines if each.name == name), None)
        if found is None:
            raise NotFound(f'machine "{name}" not found')
        self._core.dismiss(found, "terminated on request")

    # ---- accidents ----

    def set_outage(self, outage: Outage, *, over: bool, now: float) -> None:
        """Begin one, or end all that it covers. Raises BadRequest for what the cloud does not have."""
        if outage.type and outage.type not in self._core.state.types:
            raise BadRequest(f'instance type "{outage.type}" not found')
        if outage.zone and outage.zone not in ZONES:
            raise BadRequest(f'zone "{outage.zone}" not found (known: {", ".join(ZONES)})')
        if outage.capacityType not in ("", ON_DEMAND, SPOT):
            raise BadRequest(f"capacity type {outage.capacityType!r}: want {ON_DEMAND} or {SPOT}")
        kept = [
            each
            for each in self.outages(now)
            if not (
                outage.type in ("", each.type)
                and outage.zone in ("", each.zone)
                and outage.capacityType in ("", each.capacityType)
            )
        ]
        self._core.state.outages = kept if over else [*kept, outage]

    def fail(self, fault: Fault) -> None:
        """Let coming orders go wrong; an empty mode ends that. Raises BadRequest."""
        if fault.mode and fault.mode not in FAILURES:
            raise BadRequest(f"failure {fault.mode!r}: want one of {', '.join(FAILURES)}")
        if not 0 <= fault.after < _FOREVER or fault.count < -1:
            raise BadRequest("a failure needs a positive count and delay")
        self._core.state.machineFault = fault
