"""Field ownership in the write path: which kind, door and manager a write is accounted to.

Owns the choice of schema, subresource rules and manager name; the bookkeeping itself is `apiserver.apply`'s. A
`Tracker` belongs to one resource in one version and is asked after defaulting and before admission, so that what the
server itself fills in afterwards has no owner, as upstream. Called by `ResourceStore`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from api.schema import for_kind
from apiserver.apply import ownership, server_side
from apiserver.apply.fieldset import MEMBER, FieldSet
from apiserver.apply.ownership import Entry, Kind, OtherVersion
from apiserver.apply.shapes import Shape, root_shape
from apiserver.apply.walk import Undeclared, declared
from apiserver.registry.context import RequestContext
from apiserver.registry.strategy import WHOLE_METADATA
from apiserver.storage.keys import BUILT_IN_GROUPS
from machinery.clock import Clock
from machinery.errors import BadRequest, StatusError
from machinery.meta import rfc3339

if TYPE_CHECKING:
    from api.resources import Resource
    from api.schema import SchemaNode
    from apiserver.registry.strategy import Strategy

Obj = dict[str, Any]
Others = Callable[[], Mapping[str, OtherVersion]]

_STATUS: FieldSet = {"f:status": MEMBER}
# What a write through a subresource leaves alone, besides `spec`.
_KEPT_BY_STATUS: Mapping[tuple[str, str], FieldSet] = {
    ("", "pods"): {"f:metadata": {"f:deletionTimestamp": MEMBER, "f:ownerReferences": MEMBER}},
    ("apiextensions.k8s.io", "customresourcedefinitions"): {"f:metadata": MEMBER},
}


_UNTRACKED, _TEMPLATE_GENERATION = "untracked", "template generation"
_SPECIAL: Mapping[tuple[str, str], str] = {
    # Upstream gives new requests no managedFields.
    ("certificates.k8s.io", "certificatesigningrequests"): _UNTRACKED,
    ("apps", "daemonsets"): _TEMPLATE_GENERATION,
}
_LISTS: Mapping[tuple[str, str], str] = {
    ("rbac.authorization.k8s.io", "roles"): "rules",
    ("rbac.authorization.k8s.io", "clusterroles"): "rules",
    ("discovery.k8s.io", "endpointslices"): "endpoints",
}
_GENERATION_ANNOTATION = "deprecated.daemonset.template.generation"


def _with_template_generation(obj: Obj) -> Obj:
    """Upstream writes this annotation while it converts the request, so its sender owns it."""
    meta = obj["metadata"]
    return {**obj, "metadata": {**meta, "annotations": {**(meta.get("annotations") or {}), _GENERATION_ANNOTATION: ""}}}


def ignored_fields(resource: Resource, subresource: str, status_keeps: tuple[str, ...] = ()) -> FieldSet:
    """Fields that a door does not write, so that nobody comes to own them there."""
    if subresource == "scale":
        return {}
    if subresource != "status":
        return _STATUS if "status" in resource.subresources else {}
    ignored: FieldSet = {"f:spec": MEMBER}
    if resource.group not in BUILT_IN_GROUPS:
        return {**ignored, "f:metadata": MEMBER}
    if status_keeps == WHOLE_METADATA:
        ignored["f:metadata"] = MEMBER
    elif status_keeps:
        ignored["f:metadata"] = {f"f:{name}": MEMBER for name in status_keeps}
    return {**ignored, **_KEPT_BY_STATUS.get((resource.group, resource.plural), {})}


class _SameEverywhere(dict[str, OtherVersion]):
    """Versions of a custom resource differ by their name alone, as far as ownership goes."""

    def __init__(self, group: str, shape: Shape) -> None:
        super().__init__()
        self._group = group
        self._same = OtherVersion(shape, lambda obj: obj, lambda obj, whole: obj)

    def get(self, version: str, default: Any = None) -> Any:
        return self._same if version.rpartition("/")[0] == self._group else default


class Tracker:
    """Accounts the writes of one resource in one version."""

    def __init__(
        self,
        resource: Resource,
        strategy: Strategy,
        clock: Clock,
        *,
        schema: SchemaNode | None = None,
        others: Others | None = None,
        shown: Callable[[Obj], Obj] | None = None,
    ) -> None:
        self.resource = resource
        self._strategy = strategy
        self._clock = clock
        self._schema: SchemaNode | None = schema
        self.others = others
        """Other versions in which managers may have written; asked once, at the first write."""
        self._shown = shown
        """From the stored version to this one, where they differ."""
        self._kinds: dict[str, Kind] = {}
        self.list_field = _LISTS.get((resource.group, resource.plural), "")
        """A list that is stored as null when it is empty, but owned by whoever sent it so."""
        self._special = _SPECIAL.get((resource.group, resource.plural), "")

    def shape(self) -> Shape:
        resource = self.resource
        custom: SchemaNode | None = getattr(resource, "node", None)
        return root_shape(resource.group, resource.version, resource.kind, self._schema or custom)

    def kind(self, subresource: str) -> Kind:
        """The kind as one door writes it."""
        found = self._kinds.get(subresource)
        if found is None:
            ignored = ignored_fields(self.resource, subresource, self._strategy.rules.status_keeps)
            shape = self._kinds[""].shape if "" in self._kinds else self.shape()
            others: Mapping[str, OtherVersion] | None = None
            if self.others is not None:
                others = self.others()
            elif self.resource.group not in BUILT_IN_GROUPS:
                others = _SameEverywhere(self.resource.group, shape)
            found = Kind(self.resource.group_version, shape, subresource, ignored, others)
            self._kinds[subresource] = found
        return found

    def created(self, ctx: RequestContext, obj: Obj, given: Any, now: str, *, empty_list: bool = False) -> Any:
        """The entries of a new object, to be written as they are; `given` is what the client sent as such."""
        if empty_list:
            obj = {**obj, self.list_field: []}
        if self._shown is not None:
            obj = self._shown(obj)
        if self._special:
            if self._special == _UNTRACKED:
                return None
            obj = _with_template_generation(obj)
        kind = self.kind("")
        if given:
            entries = ownership.plan_given(given, ())
            if entries:
                return ownership.plan_update(kind, {}, obj, entries, _manager(ctx), now)
        return ownership.plan_create_json(kind, obj, _manager(ctx), now)

    def updated(self, ctx: RequestContext, old: Obj, new: Obj, given: Any, subresource: str) -> list[Entry]:
        """The entries after a plain write."""
        live = _usable(old["metadata"].get("managedFields"))
        entries = ownership.plan_given(given, live) if given and not subresource and given != live else live
        if not entries:
            return entries
        if self._shown is not None:
            old, new = self._shown(old), self._shown(new)
        now = "" if subresource == "scale" else rfc3339(self._clock.now())
        return ownership.plan_update(self.kind(subresource), old, new, entries, _manager(ctx), now)

    def applied(self, ctx: RequestContext, live: Obj, config: Obj, subresource: str) -> Obj:
        """The object that an apply makes, its managedFields included; `live` is {} where there is none."""
        kind, now = self.kind(subresource), rfc3339(self._clock.now())
        if live and (entries := live["metadata"].get("managedFields")) and _usable(entries) is not entries:
            live = {**live, "metadata": {**live["metadata"], "managedFields": _usable(entries)}}
        if self._shown is not None and live:
            live = self._shown(live)
        try:
            if subresource == "scale":
                declared(root_shape("autoscaling", "v1", "Scale"), config)
                replicas = (config.get("spec") or {}).get("replicas")
                config = {"metadata": {}, "spec": {} if replicas is None else {"replicas": replicas}}
                now = ""
            plan = server_side.plan_apply(kind, live, config, ctx.field_manager, force=ctx.force, now=now)
        except Undeclared as error:
            text = f"failed to create typed patch object ({self._named(config)}): {error}"
            raise StatusError(text, code=500, reason="") from error
        meta = {key: value for key, value in (plan.obj.get("metadata") or {}).items() if key != "managedFields"}
        if plan.managed:
            meta["managedFields"] = plan.managed
        applied = {**plan.obj, "metadata": meta}
        return applied if subresource == "scale" else self._accepted(applied)

    def _accepted(self, obj: Obj) -> Obj:
        """What can be decoded as the kind: inside of what is owned whole the schema was not looked at yet."""
        from apiserver import fieldvalidation

        resource = self.resource
        accept = getattr(resource, "accept_patched", None)
        if accept is not None:
            found: Obj = accept(obj, fieldvalidation.IGNORE, [])
            return found
        node = for_kind(resource.group, resource.version, resource.kind)
        return fieldvalidation.accept_patched(
            obj, node, patch=None, directive=fieldvalidation.IGNORE, warnings=list[str]()
        )

    def check_config(self, config: Obj, subresource: str) -> None:
        """Raises BadRequest for a configuration of another object or with fields that are not its to state."""
        api_version, kind = self.resource.group_version, self.resource.kind
        if subresource == "scale":
            api_version, kind = "autoscaling/v1", "Scale"
        given_version, given_kind = config.get("apiVersion"), config.get("kind")
        group, _, version = str(given_version or "").rpartition("/")
        expected = api_version.rpartition("/")
        if given_kind != kind or group != expected[0]:
            raise BadRequest(f"invalid object type: {group}/{version}, Kind={given_kind or ''}")
        if given_version != api_version:
            raise BadRequest(
                "Incorrect version specified in apply patch. "
                f"Specified patch version: {given_version}, expected: {api_version}"
            )
        meta = config.get("metadata")
        if meta is not None and not isinstance(meta, dict):
            raise BadRequest("metadata must be an object")
        if meta and meta.get("managedFields") is not None:
            raise BadRequest("metadata.managedFields must be nil")

    def _named(self, config: Obj) -> str:
        meta = config.get("metadata") or {}
        resource = self.resource
        place = f"{meta.get('namespace') or ''}/{meta.get('name') or ''}"
        return f"{place}; {resource.group}/{resource.version}, Kind={resource.kind}"


def _usable(stored: Any) -> list[Entry]:
    """The stored entries, without what some foreign writer spoilt."""
    if not stored:
        return []
    for entry in stored:
        if not isinstance(entry.get("fieldsV1"), dict) or "operation" not in entry or not entry.get("apiVersion"):
            return ownership.plan_given(stored, ())
    found: list[Entry] = stored
    return found


def _manager(ctx: RequestContext) -> str:
    return ctx.field_manager or "unknown"
