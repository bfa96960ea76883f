"""Keeps `status.hard` and `status.used` of ResourceQuotas true.

Owns both fields together with the API server, which adds to `used` before it creates. Counts what it lists afresh, so
never a cache that is behind. A count that lowers `used` is written only when the quota has been at rest for a moment:
what was charged a moment ago may not be stored yet, and would be given away a second time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from api import quota as rules
from api import resources
from api.models import core_v1
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.informer import EventHandler, Informer
from client.kinds import View
from controller_manager.environment import Environment
from controller_manager.resource_quota.plan import lowers, plan_used, same, targets
from machinery import log
from machinery.errors import NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey

PERIOD: Final = 300.0
"""Everything is counted again so often, as upstream does."""
UNKNOWN_PERIOD: Final = 15.0
"""So often when the quota names resources that the server does not have yet."""
REST: Final = 1.0
PAGE: Final = 500
WATCHED: Final = frozenset({rules.PODS, rules.SERVICES, rules.CLAIMS})
CRDS: Final = resources.lookup("apiextensions.k8s.io", "v1", "customresourcedefinitions")
_log = log.get(__name__)


class _Metadata(msgspec.Struct, gc=False):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""


class _Partial(msgspec.Struct, gc=False):
    metadata: _Metadata


class ResourceQuotaController:
    """Woken by changed quotas, by pods that end, and by whatever is counted and goes."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._moved: dict[ObjectKey, tuple[str, float]] = {}
        self._quotas: Informer[core_v1.ResourceQuota] = env.informers.informer(core_v1.ResourceQuota)
        pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod)
        services: Informer[core_v1.Service] = env.informers.informer(core_v1.Service)
        claims: Informer[core_v1.PersistentVolumeClaim] = env.informers.informer(core_v1.PersistentVolumeClaim)
        watched: list[Informer[Any]] = [self._quotas, pods, services, claims]
        self.controller = Controller(
            "resourcequota-controller",
            self.reconcile,
            clock=env.clock,
            informers=watched,
            workers=env.options.concurrent_syncs,
        )
        self._informers = env.informers
        self._watched: dict[rules.GroupResource, resources.Resource] = {}
        """What else quotas count; of those only metadata is kept."""
        self._quotas.add_handler(EventHandler(self._changed, lambda _, new: self._changed(new), self._gone))
        pods.add_handler(EventHandler(_nothing, self._pod_updated, self._freed))
        services.add_handler(EventHandler(_nothing, self._service_updated, self._freed))
        claims.add_handler(EventHandler(_nothing, lambda old, new: None, self._freed))

    # -- what wakes it ------------------------------------------------------------------------------------------------

    def _changed(self, quota: core_v1.ResourceQuota) -> None:
        assert quota.metadata is not None
        self._moved[key_of(quota)] = (quota.metadata.resourceVersion or "", self._clock.monotonic())
        self.controller.enqueue_object(quota)

    def _gone(self, quota: core_v1.ResourceQuota) -> None:
        self._moved.pop(key_of(quota), None)

    def _freed(self, obj: Any) -> None:
        for key in self._quotas_of(obj.metadata.namespace or ""):
            self.controller.enqueue(key)

    def _pod_updated(self, old: core_v1.Pod, new: core_v1.Pod) -> None:
        if _phase(old) != _phase(new) and _phase(new) in ("Succeeded", "Failed"):
            self._freed(new)

    def _service_updated(self, old: core_v1.Service, new: core_v1.Service) -> None:
        if old.spec != new.spec:
            self._freed(new)

    def _quotas_of(self, namespace: str) -> Iterable[ObjectKey]:
        return [key_of(quota) for quota in self._quotas.lister.list(namespace)]

    # -- counting -----------------------------------------------------------------------------------------------------

    async def reconcile(self, key: ObjectKey) -> Result:
        cached = self._quotas.lister.get(key)
        if cached is None:
            return DONE
        quota: dict[str, Any] = msgspec.to_builtins(cached)
        version = quota["metadata"].get("resourceVersion") or ""
        wanted = targets((quota.get("spec") or {}).get("hard") or {})
        objects = {}
        for target in wanted:
            found = await self._list(target, key.namespace)
            if found is not None:
                objects[target] = found
        hard, used = plan_used(quota, objects, self._clock.now())
        status = quota.get("status") or {}
        before = status.get("used") or {}
        if not same(status.get("hard") or {}, hard) or not same(before, used):
            wait = self._unrest(key, version) if lowers(before, used) else 0.0
            if wait > 0:
                return Result(wait)
            changes = {name: None for name in before if name not in used}
            gone = {name: None for name in (status.get("hard") or {}) if name not in hard}
            patch = {"status": {"hard": {**gone, **hard}, "used": {**changes, **used}}}
            await self._client.patch(
                core_v1.ResourceQuota, key.name, patch, key.namespace, subresource="status", resource_version=version
            )
        known = all(target in WATCHED or target in self._watched for target in wanted)
        return Result(PERIOD if known else UNKNOWN_PERIOD)

    def _unrest(self, key: ObjectKey, version: str) -> float:
        """How long to wait until the quota has been at rest long enough."""
        seen, since = self._moved.get(key, ("", self._clock.monotonic()))
        if seen != version:
            return REST
        return max(since + REST - self._clock.monotonic(), 0.0)

    async def _list(self, target: rules.GroupResource, namespace: str) -> list[dict[str, Any]] | None:
        """All objects of a resource as the store has them now; None when they cannot be listed."""
        try:
            resource = await self._resource(target)
            if resource is None:
                return []
            self._watch(target, resource)
            found: list[dict[str, Any]] = []
            continue_ = ""
            while True:
                page = await self._client.list(resource, namespace, limit=PAGE, continue_=continue_)
                found += page.items
                continue_ = page.continue_
                if not continue_:
                    return found
        except StatusError as error:
            _log.warning(
                "Could not count", extra=kv(resource=rules.count_key(target), namespace=namespace, error=error)
            )
            return None

    def _watch(self, target: rules.GroupResource, resource: resources.Resource) -> None:
        """From now on a deletion of such an object wakes the quotas of its namespace."""
        if target in WATCHED or self._watched.get(target) == resource:
            return
        before = self._watched.get(target)
        if before is not None:  # another version of a custom resource
            self._informers.drop(self._informers.informer(View(before, _Partial)))
        self._watched[target] = resource
        informer = self._informers.informer(View(resource, _Partial))
        informer.add_handler(EventHandler(_nothing, lambda old, new: None, self._freed))

    async def _resource(self, target: rules.GroupResource) -> resources.Resource | None:
        """The resource of a name in a quota; None when the server has none of this name."""
        group, plural = target
        for each in resources.RESOURCES:
            if (each.group, each.plural) == target and each.namespaced and each.storable:
                return resources.storage_of(each)
        if not group or CRDS is None:
            return None
        try:
            definition = await self._client.get(CRDS, f"{plural}.{group}")
        except NotFound:
            return None
        spec = definition["spec"]
        version = next((each["name"] for each in spec["versions"] if each.get("storage") and each.get("served")), "")
        if not version or spec.get("scope") != "Namespaced":
            return None
        return resources.Resource(group, version, plural, spec["names"]["kind"])


def _nothing(_: Any) -> None:
    """New objects are charged by the server that creates them."""


def _phase(pod: core_v1.Pod) -> str:
    return (pod.status.phase if pod.status else None) or ""


def build(env: Environment) -> list[Controller]:
    return [ResourceQuotaController(env).controller]
