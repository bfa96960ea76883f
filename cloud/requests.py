"""What may be asked of the cloud: checks, and the change of plan that a request means.

Owns the refusals (StatusErrors with a reason) of both services. No I/O; `cloud.core` brings about what is planned here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cloud.core import Core
from cloud.model import (
    FAILURES,
    GROUP_LABEL,
    MACHINES,
    MAX_REAL,
    REGION_LABEL,
    SPOT_FACTOR,
    SPOT_LABEL,
    TYPE_LABEL,
    ZONE_LABEL,
    Autoscaling,
    Fault,
    Group,
    Instance,
    InstanceType,
    SpotMarket,
    instance_of,
    provider_id,
)
from machinery.errors import AlreadyExists, BadRequest, Conflict, NotFound

NOTICE = 120.0  # seconds of warning before a spot machine is taken away
MAX_SIZE = 5000
RESERVED = frozenset({"hollow", MACHINES})  # the nodes of `nanokube hollow` are called so; orders one by one
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,13}[a-z0-9])?")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
OWN_LABELS = frozenset({GROUP_LABEL, TYPE_LABEL, ZONE_LABEL, REGION_LABEL, SPOT_LABEL})
_ZONE = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


class Requests:
    """The verbs of the cloud over one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def core(self) -> Core:
        return self._core

    # ---- look ----

    def group(self, name: str) -> Group:
        """Raises NotFound."""
        try:
            return self._core.state.groups[name]
        except KeyError:
            raise NotFound(f'node group "{name}" not found') from None

    def instance(self, name: str) -> Instance:
        """One that is not gone. Raises NotFound."""
        found = self._core.state.instances.get(name)
        if found is None or found.phase == "gone":
            raise NotFound(f'instance "{name}" not found')
        return found

    def find(self, provider: str, name: str) -> Instance | None:
        """The instance of a node: by its providerID, or by its name while it has none."""
        known = self._core.state.instances.get(instance_of(provider, self._core.state.cluster) if provider else name)
        if known is None and provider and "://" not in provider:
            known = self._core.state.instances.get(provider)
        return known

    def price_by_labels(self, labels: Mapping[str, str]) -> float | None:
        """Dollars per hour of a node that does not exist, as its labels describe it."""
        state = self._core.state
        group = state.groups.get(labels.get(GROUP_LABEL, ""))
        kind = state.types.get(group.type if group is not None else labels.get(TYPE_LABEL, ""))
        if kind is None:
            return None
        return kind.pricePerHour * (SPOT_FACTOR if labels.get(SPOT_LABEL) == "spot" else 1.0)

    # ---- sizes ----

    def increase(self, group: Group, delta: int) -> None:
        """More machines. Raises BadRequest and leaves everything as it was when that is not possible."""
        if delta <= 0:
            raise BadRequest(f"size increase must be positive, not {delta}")
        if group.desired + delta > group.max:
            raise BadRequest(
                f"size increase too large: desired {group.desired + delta}, max {group.max} (node group {group.name})"
            )
        group.desired += delta

    def decrease_target(self, group: Group, delta: int) -> None:
        """Want fewer of those that are not there yet; never touches a machine that exists."""
        if delta >= 0:
            raise BadRequest(f"size decrease must be negative, not {delta}")
        waiting = [each for each in self._core.state.of(group.name) if each.counts and each.phase == "pending"]
        counted = sum(each.counts for each in self._core.state.of(group.name))
        missing = max(0, group.desired - counted)
        if -delta > len(waiting) + missing:
            raise BadRequest(
                f"attempt to delete existing nodes: target size {group.desired}, delta {delta}, "
                f"existing {counted - len(waiting)} (node group {group.name})"
            )
        if group.desired + delta < group.min:
            raise BadRequest(f"size decrease too large: desired {group.desired + delta}, min {group.min}")
        group.desired += delta
        newest = sorted(waiting, key=lambda each: (each.problem is not None, each.created, each.name), reverse=True)
        for each in newest[: max(0, -delta - missing)]:
            self._core.dismiss(each, "no longer wanted")

    def delete(self, group: Group, instances: Iterable[Instance]) -> None:
        """Take these machines away and want as many fewer. Raises BadRequest before anything is touched."""
        chosen = list({each.name: each for each in instances}.values())
        for each in chosen:
            if each.group != group.name:
                raise BadRequest(f"instance {each.name} does not belong to node group {group.name}")
        counting = [each for each in chosen if each.counts]
        if group.desired - len(counting) < group.min:
            raise BadRequest(
                f"min size reached, nodes will not be deleted: desired {group.desired}, min {group.min}, "
                f"to delete {len(counting)} (node group {group.name})"
            )
        group.desired -= len(counting)
        for each in chosen:
            self._core.dismiss(each, "deleted on request")

    def resize(self, group: Group, desired: int | None, low: int | None, high: int | None) -> None:
        """Set sizes; a desired size that is not given is moved into the new bounds."""
        low, high = group.min if low is None else low, group.max if high is None else high
        self._check_bounds(low, high, group.hollow)
        wanted = min(max(group.desired, low), high) if desired is None else desired
        if not low <= wanted <= high:
            raise BadRequest(f"desired size {wanted} must lie between min {low} and max {high}")
        group.min, group.max, group.desired = low, high, wanted

    # ---- groups ----

    def create_group(self, group: Group, kind: InstanceType | None = None) -> None:
        """Add a group; `kind` is its instance type when that is a new one."""
        state = self._core.state
        if not _NAME.fullmatch(group.name):
            raise BadRequest(
                f"node group name {group.name!r}: want up to 15 of a-z, 0-9 and '-', beginning with a letter"
            )
        if group.name in RESERVED:
            raise BadRequest(f"node group name {group.name!r} is reserved")
        if group.name in state.groups or any(each.prefix == group.prefix for each in state.groups.values()):
            raise AlreadyExists(f'node group "{group.name}" already exists')
        if any(each.phase != "gone" for each in state.of(group.name)):
            raise Conflict(f'machines of an earlier node group "{group.name}" are still being deleted')
        if kind is not None and not 0 < kind.pricePerHour < 1e6:
            raise BadRequest("an instance type needs a size and a price")
        if kind is None and group.type not in state.types:
            raise NotFound(f'instance type "{group.type}" not found (known: {", ".join(state.types)})')
        for zone in group.zones:
            if not _ZONE.fullmatch(zone):
                raise BadRequest(f"zone {zone!r} is no label value")
        for seconds in (group.bootDelay, group.healAfter):
            if not 0 <= seconds < 1e9:
                raise BadRequest("delays must be a positive number of seconds")
        for key, value in group.labels.items():
            if key in OWN_LABELS or not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
                raise BadRequest(f"label {key}={value} cannot be set on nodes of this cloud")
        for taint in group.taints:
            known = taint.effect in ("NoSchedule", "PreferNoSchedule", "NoExecute")
            if not known or not LABEL_KEY.fullmatch(taint.key) or not LABEL_VALUE.fullmatch(taint.value):
                raise BadRequest(f"taint {taint} is none")
        _check_autoscaling(group.autoscaling)
        _check_rate(group.interruptions)
        if group.interruptions is not None and not group.spot:
            raise BadRequest("only spot machines are interrupted at random")
        self._check_bounds(group.min, group.max, group.hollow)
        if not group.min <= group.desired <= group.max:
            raise BadRequest(f"desired size {group.desired} must lie between min {group.min} and max {group.max}")
        if kind is not None and state.types.setdefault(kind.name, kind) != kind:
            raise AlreadyExists(f'instance type "{kind.name}" already exists and is different')
        state.groups[group.name] = group

    def delete_group(self, group: Group) -> None:
        """Take all its machines away and forget it."""
        for each in self._core.state.of(group.name):
            self._core.dismiss(each, "node group deleted")
        del self._core.state.groups[group.name]

    def set_delays(self, group: Group, boot: float | None, heal: float | None) -> None:
        """Seconds; `heal` 0: failed machines are left as they are. None: unchanged."""
        for seconds in (boot, heal):
            if seconds is not None and not 0 <= seconds < 1e9:
                raise BadRequest("delays must be a positive number of seconds")
        group.bootDelay = group.bootDelay if boot is None else boot
        group.healAfter = group.healAfter if heal is None else heal

    def fail(self, group: Group, fault: Fault) -> None:
        """Let coming launches go wrong; an empty mode ends that."""
        if fault.mode and fault.mode not in FAILURES:
            raise BadRequest(f"failure {fault.mode!r}: want one of {', '.join(FAILURES)}")
        if not 0 <= fault.after < 1e9 or fault.count < -1:
            raise BadRequest("a failure needs a positive count and delay")
        group.fault = fault

    def interrupt(self, instance: Instance, now: float, notice: float = NOTICE) -> float:
        """Announce that a machine will be taken away; returns when. Its replacement is ordered at once."""
        if instance.phase != "running":
            raise Conflict(f"instance {instance.name} is {instance.phase}: only running ones can be interrupted")
        if not 0 <= notice < 1e9:
            raise BadRequest("notice must be a positive number of seconds")
        self._core.interrupt(instance, now + notice)
        return instance.notice if instance.notice is not None else now

    def set_market(self, now: float, interruptions: float | None, notice: float | None, seed: int | None) -> SpotMarket:
        """The terms of all spot machines; None: unchanged."""
        market = self._core.state.market
        _check_rate(interruptions)
        if notice is not None and not 0 <= notice < 1e9:
            raise BadRequest("notice must be a positive number of seconds")
        market.interruptions = market.interruptions if interruptions is None else interruptions
        market.notice = market.notice if notice is None else notice
        market.seed = market.seed if seed is None else seed
        if interruptions is not None or seed is not None:
            self._core.draw_again(now)
        return market

    def set_interruptions(self, group: Group, rate: float, now: float) -> None:
        """Per machine and hour, for the machines of one spot group."""
        _check_rate(rate)
        if not group.spot:
            raise BadRequest(f"node group {group.name} is not of spot machines")
        group.interruptions = rate
        self._core.draw_again(now)

    def set_autoscaling(self, group: Group, wanted: Autoscaling) -> None:
        """Options for an autoscaler; those that are None stay as they are."""
        _check_autoscaling(wanted)
        for key in wanted.__struct_fields__:
            if getattr(wanted, key) is not None:
                setattr(group.autoscaling, key, getattr(wanted, key))

    def _check_bounds(self, low: int, high: int, hollow: bool) -> None:
        limit = MAX_SIZE if hollow else MAX_REAL
        if not 0 <= low <= high <= limit:
            raise BadRequest(f"want 0 <= min <= max <= {limit}, not min {low} and max {high}")

    def provider_id(self, instance: Instance) -> str:
        """What its Node's spec.providerID says."""
        return provider_id(self._core.state.cluster, instance.name)


def _check_rate(interruptions: float | None) -> None:
    if interruptions is not None and not 0 <= interruptions < 1e6:
        raise BadRequest("interruptions must be a positive number per machine and hour")


def _check_autoscaling(wanted: Autoscaling) -> None:
    threshold = wanted.scaleDownUtilizationThreshold
    if threshold is not None and not 0 <= threshold <= 1:
        raise BadRequest(f"scale-down-utilization-threshold must lie between 0 and 1, not {threshold:g}")
    for seconds in (
        wanted.scaleDownUnneededTime,
        wanted.scaleDownUnreadyTime,
        wanted.maxNodeProvisionTime,
        wanted.maxNodeStartupTime,
    ):
        if seconds is not None and not 0 <= seconds < 1e9:
            raise BadRequest("times of autoscaling options must be a positive number of seconds")
