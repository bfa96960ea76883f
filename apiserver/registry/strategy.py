"""What creating, updating and deleting an object of a kind means.

Owns the generic `Strategy`, right for every regular resource through its `Rules`, and `strategy_for`. Works on
plain dicts and does no I/O. Called by the registry, in this order:

* create: `canonicalize`, `default`, (mutating admission), `prepare_create`, `validate_create`, `begin_create`, write
* update: `canonicalize`, `default`, (mutating admission), `prepare_update`, `validate_update`, `begin_update`, write
* delete: `grace_period` (None = at once); `prepare_graceful_delete` when the deletionTimestamp is set;
  `after_delete` when the object is gone

Subresources are strategies too (`for_subresource`): `view` is what a GET of the subresource shows, `merge` turns the
body of a PUT into the parent as it shall become; then come the subresource strategy's update hooks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from apiserver.registry.defaults.canonical import canonicalize, plan_for
from apiserver.registry.validation.metadata import (
    TWICE,
    Passes,
    inherit_metadata,
    validate_metadata,
    validate_metadata_update,
)
from apiserver.registry.validation.names import NameCheck, dns_subdomain
from machinery.field_errors import FieldError

if TYPE_CHECKING:
    from api.resources import Resource
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]
Finish = Callable[[bool], None]
"""Called after the write with success or failure: keeps or releases what `begin_*` reserved."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """How a kind differs from the plainest resource; one row per regular kind."""

    name: NameCheck = dns_subdomain
    generation: bool = False
    """metadata.generation starts at 1 and counts changes of the desired state."""
    desired_state: tuple[str, ...] = ("spec",)
    """Fields whose change raises the generation; empty = all but metadata and status."""
    annotations_count: bool = False
    """Changed annotations raise the generation too (deployments)."""
    has_status: bool = False
    """The main resource ignores `status`; it is written through the subresource."""
    status_at_creation: bool = False
    """A new object may bring its status along (nodes register with it)."""
    new_status: Obj | None = None
    """Status of a new object; None = no `status` key."""
    allow_create_on_update: bool = False
    allow_unconditional_update: bool = True
    default: Callable[[Obj], None] | None = None
    prepare: Callable[[Obj], None] | None = None
    """Takes away what is no longer stored; after defaulting, so that its sender owns it all the same."""
    validate: Callable[[Obj], list[FieldError]] | None = None
    """Rules for new objects and, unless `validate_update` is given, for updated ones."""
    validate_update: Callable[[Obj, Obj], list[FieldError]] | None = None
    passes: Passes = TWICE
    """How often upstream looks at the metadata of an update."""
    looks: int = 1
    """How often upstream looks at the rest of an update that it judges like a new object."""
    validate_status: Callable[[Obj, Obj], list[FieldError]] | None = None
    status_keeps: tuple[str, ...] = ()
    """Metadata that a status write cannot change."""
    fields: Mapping[str, Callable[[Obj], str]] = dataclasses.field(default_factory=dict)
    """Field selectors besides metadata.name and metadata.namespace."""
    warnings: Callable[[Obj, Obj | None], list[str]] | None = None
    lifetime: float = 0.0
    """Cluster seconds after its last write when an object goes away by itself; 0: never."""


PLAIN = Rules()
WHOLE_METADATA: Final = ("labels", "annotations", "finalizers", "ownerReferences")
"""`Rules.status_keeps` of kinds whose status writes change nothing but the status: what upstream wants of new ones."""


class Strategy:
    """Rules of one resource. Regular kinds differ by `Rules`; irregular ones subclass and override hooks."""

    rules: Rules = PLAIN

    def __init__(self, resource: Resource, rules: Rules | None = None) -> None:
        self.resource = resource
        if rules is not None:
            self.rules = rules
        self.allow_create_on_update = self.rules.allow_create_on_update
        self.allow_unconditional_update = self.rules.allow_unconditional_update
        own = {"metadata.name", "metadata.namespace"} if resource.namespaced else {"metadata.name"}
        self.field_labels: frozenset[str] = frozenset(own) | frozenset(self.rules.fields)
        self._subresources: dict[str, Strategy] = {}

    # -- create -------------------------------------------------------------------------------------------------------

    def canonicalize(self, obj: Obj) -> None:
        """Bring values into the form in which upstream writes them (quantities, dropped empty fields)."""
        resource = self.resource
        if (plan := plan_for(resource.group, resource.version, resource.kind)) is not None:
            canonicalize(obj, plan)

    def default(self, obj: Obj) -> None:
        """Fill absent fields."""
        if self.rules.default:
            self.rules.default(obj)

    def prepare_create(self, ctx: RequestContext, obj: Obj) -> None:
        """Drop what clients may not set and set what the server decides."""
        meta = obj["metadata"]
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            meta.pop(field, None)
        rules = self.rules
        if rules.has_status and not rules.status_at_creation:
            if rules.new_status is None:
                obj.pop("status", None)
            else:
                obj["status"] = _copied(rules.new_status)
        if rules.generation:
            meta["generation"] = 1
        else:
            meta.pop("generation", None)
        if rules.prepare is not None:
            rules.prepare(obj)

    def validate_create(self, ctx: RequestContext, obj: Obj) -> list[FieldError]:
        """All findings about a new object."""
        rules = self.rules
        standard = rules.passes.standard
        errors = validate_metadata(obj["metadata"], self.resource.namespaced, rules.name, standard=standard)
        errors += self.validate(obj)
        return errors

    def validate(self, obj: Obj) -> list[FieldError]:
        """Rules of the kind that hold for new and updated objects alike."""
        return self.rules.validate(obj) if self.rules.validate else []

    def begin_create(self, ctx: RequestContext, obj: Obj) -> Finish | None:
        """Reserve what the object needs (addresses, ports); may raise StatusError."""
        return None

    # -- update -------------------------------------------------------------------------------------------------------

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        """Take over what this way of writing cannot change, count the generation."""
        inherit_metadata(new["metadata"], old["metadata"])
        if self.rules.has_status:
            _keep(new, old, "status")
        if self.rules.prepare is not None:
            self.rules.prepare(new)
        self._count_generation(new, old)

    def _count_generation(self, new: Obj, old: Obj) -> None:
        meta = new["metadata"]
        generation = old["metadata"].get("generation")
        if generation is None:
            meta.pop("generation", None)
        else:
            meta["generation"] = generation
        if self.rules.generation and self.desired_state_changed(new, old):
            meta["generation"] = (generation or 0) + 1

    def desired_state_changed(self, new: Obj, old: Obj) -> bool:
        """Does this update raise the generation?"""
        if self.rules.annotations_count:
            after, before = (obj["metadata"].get("annotations") or {} for obj in (new, old))
            if after != before:
                return True
        if fields := self.rules.desired_state:
            return any(new.get(field) != old.get(field) for field in fields)
        skip = ("metadata", "status", "apiVersion", "kind")
        return any(new.get(field) != old.get(field) for field in {*new, *old} if field not in skip)

    def validate_update(self, ctx: RequestContext, new: Obj, old: Obj) -> list[FieldError]:
        """All findings about an update."""
        errors = validate_metadata_update(new["metadata"], old["metadata"], self.rules.passes)
        if self.rules.looks > 1:
            errors += self.validate(new) * (self.rules.looks - 1)
        errors += self.validate_change(new, old)
        return errors

    def validate_change(self, new: Obj, old: Obj) -> list[FieldError]:
        """Rules of the kind for an update."""
        if self.rules.validate_update:
            return self.rules.validate_update(new, old)
        return self.validate(new)

    def begin_update(self, ctx: RequestContext, new: Obj, old: Obj) -> Finish | None:
        """Reserve and, after the write, release what changed; may raise StatusError."""
        return None

    # -- delete -------------------------------------------------------------------------------------------------------

    def grace_period(self, obj: Obj, requested: int | None) -> int | None:
        """Seconds until a graceful deletion may end; None = this kind is deleted at once."""
        return None

    def prepare_graceful_delete(self, obj: Obj) -> None:
        """The deletionTimestamp was just set: upstream counts that as a change of the desired state."""
        generation = obj["metadata"].get("generation")
        if generation:
            obj["metadata"]["generation"] = generation + 1

    def after_delete(self, obj: Obj) -> None:
        """The object is gone from storage: release what it held."""

    # -- reading ------------------------------------------------------------------------------------------------------

    def warnings(self, obj: Obj, old: Obj | None = None) -> list[str]:
        """Texts for Warning headers of a create or (with `old`) an update."""
        return self.rules.warnings(obj, old) if self.rules.warnings else []

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        """Values of every supported field selector."""
        meta = obj["metadata"]
        fields = {"metadata.name": meta["name"]}
        if self.resource.namespaced:
            fields["metadata.namespace"] = meta.get("namespace") or ""
        for label, read in self.rules.fields.items():
            fields[label] = read(obj)
        return fields

    # -- subresources -------------------------------------------------------------------------------------------------

    def for_subresource(self, name: str) -> Strategy:
        """The strategy of `…/{name}`; "" is this one. An unknown name behaves like `status`."""
        if not name:
            return self
        found = self._subresources.get(name)
        if found is None:
            found = self._subresources[name] = self.make_subresource(name)
        return found

    def make_subresource(self, name: str) -> Strategy:
        """Build the strategy of a subresource, once."""
        if name == "scale":
            from apiserver.registry.strategies.scale import ScaleStrategy

            return ScaleStrategy(self)
        return StatusStrategy(self)

    def view(self, parent: Obj) -> Obj:
        """The document that this (sub)resource shows."""
        return parent

    def read(self, parent: Obj) -> Obj:
        """The document that a GET answers with; raises when there is nothing to show."""
        return self.view(parent)

    def draft(self, parent: Obj) -> Obj:
        """The document that a patch changes."""
        return self.view(parent)

    def merge(self, ctx: RequestContext, parent: Obj, body: Obj) -> Obj:
        """The parent as a PUT of `body` wants it. `parent` is not changed; may raise StatusError."""
        return body


class PartStrategy(Strategy):
    """A subresource of `parent`: the same object, of which only a part is written."""

    def __init__(self, parent: Strategy) -> None:
        super().__init__(parent.resource, parent.rules)
        self.parent = parent

    def canonicalize(self, obj: Obj) -> None:
        self.parent.canonicalize(obj)

    def default(self, obj: Obj) -> None:
        self.parent.default(obj)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return self.parent.selectable_fields(obj)

    def warnings(self, obj: Obj, old: Obj | None = None) -> list[str]:
        return []


class StatusStrategy(PartStrategy):
    """`…/status`: only the status (and, as upstream, labels and annotations of most kinds) is written."""

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        meta = new["metadata"]
        inherit_metadata(meta, old["metadata"])
        for field in self.rules.status_keeps:
            _keep(meta, old["metadata"], field)
        _keep(meta, old["metadata"], "generation")
        for field in list(new):
            if field not in ("metadata", "status", "apiVersion", "kind") and field not in old:
                del new[field]
        for field, value in old.items():
            if field not in ("metadata", "status"):
                new[field] = value

    def validate_update(self, ctx: RequestContext, new: Obj, old: Obj) -> list[FieldError]:
        passes = Passes(standard=self.rules.passes.standard)
        errors = validate_metadata_update(new["metadata"], old["metadata"], passes)
        errors += self.validate_status(new, old)
        return errors

    def validate_status(self, new: Obj, old: Obj) -> list[FieldError]:
        """Rules of the kind about its status."""
        return self.rules.validate_status(new, old) if self.rules.validate_status else []


def _keep(new: Obj, old: Obj, field: str) -> None:
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


def _copied(template: Obj) -> Obj:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in template.items()}


def strategy_for(resource: Resource) -> Strategy:
    """A strategy of the resource. Every registry asks once: strategies may hold state (allocators)."""
    # Imported here: the strategy modules subclass `Strategy`.
    from apiserver.registry.strategies.table import build

    return build(resource)
