"""Which policies concern a write, through which bindings, with which parameters.

Owns the reading of both kinds of policies and bindings, decoded once per change. Used by `validating` and `mutating`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from api import resources
from apiserver.admission.matching import matched, never_asked
from apiserver.admission.write import Write
from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.registry.context import ListOptions, RequestContext
from apiserver.registry.hooks import Obj
from apiserver.registry.store import Registry, ResourceStore
from apiserver.storage.form import decode
from machinery.errors import NotFound
from machinery.selectors import LabelSelector

if TYPE_CHECKING:
    from api.resources import Resource

GROUP = "admissionregistration.k8s.io"


class ParamsMissing(Exception):
    """The binding's parameters cannot be had; the text tells why."""


class Bound(NamedTuple):
    """A policy that concerns a write by a binding, and the version in which it wants to see the write."""

    policy: Obj
    binding: Obj
    seen: Resource

    @property
    def tolerant(self) -> bool:
        return bool((self.policy.get("spec") or {}).get("failurePolicy") == "Ignore")


class Bindings:
    """The policies and bindings of one kind."""

    def __init__(self, registry: Registry, policies: str, bindings: str) -> None:
        self._registry = registry
        self._policies = registry.resource(GROUP, "v1", policies)
        self._bindings = registry.resource(GROUP, "v1", bindings)
        self._known: tuple[tuple[int, ...], list[tuple[Obj, Obj]]] = ((), [])

    @property
    def none(self) -> bool:
        return not len(self._bindings.cache)

    def _pairs(self) -> list[tuple[Obj, Obj]]:
        """(policy, binding) of everything that is in force, ordered by policies' names, then bindings'."""
        caches = (self._policies.cache, self._bindings.cache)
        state = tuple(number for cache in caches for number in (cache.modified, len(cache)))
        if self._known[0] != state:
            policies = {entry.key.name: entry.decoded() for entry in self._policies.entries()}
            bindings = [entry.decoded() for entry in self._bindings.entries()]
            pairs = [(policies.get((each.get("spec") or {}).get("policyName") or ""), each) for each in bindings]
            bound = [(policy, binding) for policy, binding in pairs if policy is not None]
            bound.sort(key=lambda pair: str(pair[0]["metadata"]["name"]))
            self._known = (state, bound)
        return self._known[1]

    def concerning(self, write: Write) -> list[Bound]:
        """What has a say in the write."""
        if self.none or never_asked(write.resource, policy=True):
            return []
        found = []
        for policy, binding in self._pairs():
            constraints = (policy.get("spec") or {}).get("matchConstraints") or {}
            if not constraints.get("resourceRules"):
                continue
            seen = matched(self._registry, constraints, write)
            chosen = (binding.get("spec") or {}).get("matchResources") or {}
            if seen is not None and matched(self._registry, chosen, write) is not None:
                found.append(Bound(policy, binding, seen))
        return found

    async def params(self, bound: Bound, write: Write) -> list[Obj | None]:
        """The parameters to evaluate with, one after the other. Raises ParamsMissing."""
        kind = (bound.policy.get("spec") or {}).get("paramKind")
        ref = (bound.binding.get("spec") or {}).get("paramRef")
        if not kind or not ref:
            return [None]
        store = self._store_of(kind)
        namespace = ""
        if store.resource.namespaced:
            namespace = str(ref.get("namespace") or write.namespace)
            if not namespace:
                raise ParamsMissing(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                )
        elif ref.get("namespace"):
            raise ParamsMissing("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        found = await self._found(store, namespace, ref)
        if not found and ref.get("parameterNotFoundAction") != "Allow":
            raise ParamsMissing("no params found for policy binding with `Deny` parameterNotFoundAction")
        return list(found)

    def _store_of(self, kind: Obj) -> ResourceStore:
        group, version = resources.split_group_version(str(kind.get("apiVersion") or ""))
        for store in self._registry.stores():
            found = store.resource
            if (found.group, found.version, found.kind) == (group, version, kind.get("kind")):
                return store
        raise ParamsMissing(f"paramKind kind `{group}/{version}, Kind={kind.get('kind')}` not known")

    async def _found(self, store: ResourceStore, namespace: str, ref: Obj) -> list[Any]:
        ctx = RequestContext(SYSTEM_API_SERVER)
        if name := ref.get("name"):
            for version in ("0", ""):  # the cache may be a moment late with what was just written
                try:
                    return [decode(await store.get(ctx, namespace, str(name), resource_version=version))]
                except NotFound:
                    continue
            return []
        selector = LabelSelector.from_object(ref.get("selector") or {})
        options = ListOptions(label_selector=str(selector), resource_version="0")
        page = await store.list(ctx, namespace, options)
        return [decode(raw) for raw in page.items]
