"""ResourceQuota: what is created in a namespace is charged to its quotas first.

Owns charging and giving back. `status.hard` is what counts: a quota limits from the moment the quota controller has
seen it. A charge is a compare-and-swap on the quota's status, so several servers cannot oversubscribe it together; one
server lines its own charges up, so they seldom lose such a race. What failed writes leave behind the controller mends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from api import quota as rules
from api.pod_resources import Amounts
from apiserver.admission.refusal import forbidden
from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, UPDATE, Obj, Undo
from apiserver.registry.store import Registry
from apiserver.storage.entry import Entry
from apiserver.storage.keys import parse_suffix
from machinery import quantity
from machinery.errors import NotFound, StatusError

if TYPE_CHECKING:
    from api.resources import Resource

GROWS = frozenset({rules.PODS, rules.SERVICES, rules.CLAIMS})
"""Resources whose objects may come to count for more by an update."""
USER_AGENT = "kube-apiserver"


class Charge(NamedTuple):
    """What one request adds to the quotas of its namespace."""

    target: rules.GroupResource
    obj: Obj
    amounts: Amounts
    samples: dict[str, str]


class Refused(Exception):
    """The quota does not allow the charge; the text tells why."""


def plan_charge(quota: Obj, charge: Charge) -> Obj | None:
    """The quota's status with the charge, None when it is not concerned. Raises Refused."""
    status = quota.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    keys = [key for key in hard if rules.concerns(charge.target, key)]
    if not keys or not rules.in_scope(charge.target, charge.obj, quota):
        return None
    name = quota["metadata"]["name"]
    if charge.target == rules.PODS:
        missing = rules.unspecified(charge.obj.get("spec") or {}, keys)
        if missing:
            raise Refused(f"failed quota: {name}: must specify {missing}")
    unknown = sorted(key for key in keys if key not in used)
    if unknown:
        raise Refused(f"status unknown for quota: {name}, resources: {','.join(unknown)}")
    wanted = {key: number for key, number in charge.amounts.items() if key in keys and number > 0}
    if not wanted:
        return None
    after = rules.changed(used, wanted, charge.samples)
    over = sorted(key for key in wanted if quantity.parse(after[key]) > quantity.parse(hard[key]))
    if over:
        requested = rules.changed(dict.fromkeys(over, "0"), {key: wanted[key] for key in over}, charge.samples)
        texts = (rules.shown({key: str(part[key]) for key in over}) for part in (requested, used, hard))
        raise Refused("exceeded quota: {}, requested: {}, used: {}, limited: {}".format(name, *texts))
    return {**status, "used": after}


def plan_refund(quota: Obj, charge: Charge, keys: frozenset[str]) -> Obj:
    """The quota's status without what was charged for these names."""
    status = quota.get("status") or {}
    back = {key: -number for key, number in charge.amounts.items() if key in keys and key in (status.get("used") or {})}
    return {**status, "used": rules.changed(status.get("used") or {}, back, charge.samples)}


class ResourceQuota:
    """Asked last of all plugins: what others refuse is not charged."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._quotas = registry.resource("", "v1", "resourcequotas")
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def handles(self, resource: Resource) -> bool:
        return resource.namespaced

    async def check(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> Undo | None:
        quotas = self._quotas
        if new is None or not namespace or not len(quotas.cache):
            return None
        target = (resource.group, resource.plural)
        if op == CREATE:
            concerned = not subresource
        else:
            concerned = op == UPDATE and target in GROWS and subresource in ("", "resize")
        present = list(quotas.cache.names(namespace)) if concerned else []
        if not present:
            return None
        names = [parse_suffix(each).name for each in present]
        charge = self._charge(target, new, old)
        if not any(charge.amounts.values()):
            return None
        paid: list[tuple[str, frozenset[str]]] = []

        async def refund() -> None:
            for quota, keys in paid:
                await self._refund(namespace, quota, charge, keys)

        try:
            for quota in names:
                if not self._concerned(quotas.peek(namespace, quota), charge):
                    continue
                keys = await self._pay(ctx, namespace, quota, charge)
                if keys:
                    paid.append((quota, keys))
        except Refused as refusal:
            await refund()
            raise forbidden(resource, name, new, str(refusal)) from None
        except StatusError:
            await refund()
            raise
        return refund if paid else None

    def _concerned(self, entry: Entry | None, charge: Charge) -> bool:
        """Does the quota look at such objects at all? What a cache may be late with is checked when it is charged."""
        if entry is None:
            return False
        quota = entry.decoded()
        hard = (quota.get("status") or {}).get("hard") or {}
        concerned = any(rules.concerns(charge.target, key) for key in hard)
        return concerned and rules.in_scope(charge.target, charge.obj, quota)

    def _charge(self, target: rules.GroupResource, new: Obj, old: Obj | None) -> Charge:
        now = self._registry.clock.now()
        wanted = rules.usage(target, new, now)
        if old is not None:
            for key, number in rules.usage(target, old, now).items():
                wanted[key] = max(wanted.get(key, Fraction(0)) - number, Fraction(0))
        return Charge(target, new, wanted, rules.format_samples(new))

    async def _pay(self, ctx: RequestContext, namespace: str, name: str, charge: Charge) -> frozenset[str]:
        """Charge one quota; returns the names that were charged. Raises Refused."""
        changed: frozenset[str] = frozenset()

        def change(quota: Obj) -> Obj:
            nonlocal changed
            status = plan_charge(quota, charge)
            if status is None:
                changed = frozenset()
                return quota
            before = (quota.get("status") or {}).get("used") or {}
            changed = frozenset(key for key, value in status["used"].items() if before.get(key) != value)
            return {**quota, "status": status}

        await self._write(namespace, name, change, dry_run=ctx.dry_run)
        return frozenset() if ctx.dry_run else changed

    async def _refund(self, namespace: str, name: str, charge: Charge, keys: frozenset[str]) -> None:
        await self._write(namespace, name, lambda quota: {**quota, "status": plan_refund(quota, charge, keys)})

    async def _write(self, namespace: str, name: str, change: Callable[[Obj], Obj], *, dry_run: bool = False) -> None:
        quotas = self._registry.resource("", "v1", "resourcequotas")

        def guarded(quota: Obj) -> Obj:
            try:
                return change(quota)
            except Refused as refusal:
                raise _Refusal(str(refusal)) from refusal

        ctx = RequestContext(SYSTEM_API_SERVER, dry_run=dry_run, field_manager=USER_AGENT, user_agent=USER_AGENT)
        turn = self._turns.get((namespace, name))
        if turn is None:
            turn = self._turns[namespace, name] = asyncio.Lock()
        try:
            async with turn:
                await quotas.mutate(ctx, namespace, name, guarded, "status", quotas.tracker)
        except _Refusal as refusal:
            raise Refused(refusal.message) from None
        except NotFound:
            pass  # the quota went meanwhile, and with it the limit


class _Refusal(StatusError):
    """A refusal on its way through the write path, which confirms a StatusError on the store before it believes it."""
