"""What machines cost: dollars, by hour and in total, from the state alone. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloud.model import Instance, State

HOUR = 3600.0
VOLUMES = "(volumes)"  # no node group can be called so


@dataclass(frozen=True)
class Bill:
    """`hourly`: dollars per hour at this moment; `total`: dollars since the cloud began; `hours`: of machines."""

    running: int
    hourly: float
    total: float
    hours: float


def hours_of(instance: Instance, now: float) -> float:
    """Hours for which it is paid: from launch to end."""
    if instance.launched is None:
        return 0.0
    return max(0.0, (now if instance.ended is None else instance.ended) - instance.launched) / HOUR


def of_instance(instance: Instance, now: float) -> float:
    """Dollars so far."""
    return hours_of(instance, now) * instance.price


def is_paid(instance: Instance) -> bool:
    """Whether it costs something now."""
    return instance.launched is not None and instance.ended is None


def by_group(state: State, now: float) -> dict[str, Bill]:
    """A bill for every group that is, or ever cost anything, in the order of their names."""
    names = {*state.groups, *state.spent, *(each.group for each in state.instances.values())}
    bills = {name: _bill(state.of(name), state.spent.get(name, 0.0), now) for name in sorted(names)}
    volumes = of_volumes(state, now)
    return {**bills, VOLUMES: volumes} if volumes.total or volumes.running else bills


def of_volumes(state: State, now: float) -> Bill:
    """The bill of all block volumes; `running`: how many there are."""
    volumes = state.volumes.values()
    hourly, total = sum(each.hourly for each in volumes), sum(each.cost(now) for each in volumes)
    return Bill(len(volumes), hourly, state.volumesSpent + total, 0.0)


def total(state: State, now: float) -> Bill:
    """The bill of the whole cluster."""
    machines, volumes = _bill(list(state.instances.values()), sum(state.spent.values()), now), of_volumes(state, now)
    hourly, spent = machines.hourly + volumes.hourly, machines.total + volumes.total
    return replace(machines, hourly=hourly, total=spent)


def _bill(instances: list[Instance], before: float, now: float) -> Bill:
    paid = [each for each in instances if is_paid(each)]
    return Bill(
        running=len(paid),
        hourly=sum(each.price for each in paid),
        total=before + sum(of_instance(each, now) for each in instances),
        hours=sum(hours_of(each, now) for each in instances),
    )
