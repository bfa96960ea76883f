"""What creating and updating a custom object means: the schema's defaults and findings, status and scale.

Called by the registry like every strategy. One instance per served version of a definition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apiserver.crd.resource import CustomResource
from apiserver.crd.structural import embedded_objects, fill
from apiserver.crd.validation import BLOCKING, UNCHECKED, duplicates
from apiserver.registry.strategies.custom import CustomResourceStrategy, CustomStatusStrategy
from apiserver.registry.strategies.scale import ScaleStrategy
from apiserver.registry.strategy import Strategy
from apiserver.registry.validation import names
from apiserver.registry.validation.metadata import validate_metadata, validate_metadata_update
from machinery.errors import BadRequest, InternalError
from machinery.field_errors import FieldError
from machinery.selectors import LabelSelector

if TYPE_CHECKING:
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]
MAX_INT32 = 2**31 - 1
_UNSET = -(2**31)  # replicas in what a patch changes while the object has none
Read = Callable[[Obj], str]


def field_path(path: str) -> tuple[str, ...]:
    """`.spec.replicas` as names. Definitions may use nothing else in these places."""
    return tuple(part for part in path.split(".") if part)


def at(obj: Any, path: Sequence[str]) -> Any:
    """What stands there, or None."""
    for part in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(part)
    return obj


def with_value(obj: Obj, path: Sequence[str], value: Any) -> Obj:
    """The object with another value there; what is changed on the way is copied."""
    first, *rest = path
    if not rest:
        return {**obj, first: value}
    below = obj.get(first)
    return {**obj, first: with_value(below if isinstance(below, dict) else {}, rest, value)}


def selectable(resource: CustomResource) -> Mapping[str, Read]:
    """The field selectors that a version offers."""
    readers: dict[str, Read] = {}
    for item in resource.spec.get("selectableFields") or ():
        path = field_path(str(item.get("jsonPath") or ""))
        readers[".".join(path)] = _reader(path)
    return readers


def _reader(path: tuple[str, ...]) -> Read:
    def read(obj: Obj) -> str:
        value = at(obj, path)
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value)

    return read


class SchemaStrategy(CustomResourceStrategy):
    """A version of a definition. `readers` are the selectable fields of all versions, as the cache is theirs too."""

    def __init__(self, resource: CustomResource, readers: Mapping[str, Read]) -> None:
        super().__init__(resource)
        self.custom = resource
        self._readers = readers
        self.field_labels |= set(selectable(resource))

    def default(self, obj: Obj) -> None:
        fill(obj, self.custom.structural)

    def validate_create(self, ctx: RequestContext, obj: Obj) -> list[FieldError]:
        errors = validate_metadata(obj["metadata"], self.resource.namespaced, self.rules.name, standard=False)
        errors += self.custom.validator.validate(obj)
        errors += self.scale_findings(obj, "specReplicasPath")
        errors += self._embedded(obj) + duplicates(obj, self.custom.structural)
        return self.evaluated(errors, obj, None)

    def validate_update(self, ctx: RequestContext, new: Obj, old: Obj) -> list[FieldError]:
        errors = validate_metadata_update(new["metadata"], old["metadata"], self.rules.passes)
        errors += self.custom.validator.validate(new, old=old)
        errors += self.scale_findings(new, "specReplicasPath")
        errors += self._embedded(new) + self.new_duplicates(new, old)
        return self.evaluated(errors, new, old)

    def new_duplicates(self, new: Obj, old: Obj) -> list[FieldError]:
        """Items that occur twice; an object that had such items before may keep them."""
        found = duplicates(new, self.custom.structural)
        return found if found and not duplicates(old, self.custom.structural) else []

    def evaluated(self, errors: list[FieldError], new: Obj, old: Obj | None) -> list[FieldError]:
        """The findings and those of the schema's expressions, which only sound values are given to."""
        rules = self.custom.rules
        if rules is None:
            return errors
        if any(error.reason in BLOCKING for error in errors):
            return [*errors, UNCHECKED]
        return errors + (rules.evaluate(new) if old is None else rules.evaluate(new, old))

    def _embedded(self, obj: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        for path, owner in embedded_objects(obj, self.custom.structural):
            for field in ("apiVersion", "kind"):
                if owner.get(field) == "":
                    errors.append(FieldError.invalid(f"{path}.{field}", "", "must not be empty"))
            kind, meta = owner.get("kind"), owner.get("metadata")
            if isinstance(kind, str) and kind and (texts := names.dns_1035_label(kind.lower())):
                detail = "may have mixed case, but should otherwise match: " + ",".join(texts)
                errors.append(FieldError.invalid(f"{path}.kind", kind, detail))
            if isinstance(meta, dict):
                named = {"name": "fakename", **{key: value for key, value in meta.items() if value}}
                namespaced = bool(named.get("namespace"))
                errors += validate_metadata(named, namespaced, names.path_segment, f"{path}.metadata", standard=False)
        return errors

    def scale_findings(self, obj: Obj, which: str) -> list[FieldError]:
        """A count that the scale subresource shows."""
        path = self.custom.scale.get(which)
        value = at(obj, field_path(path)) if path else None
        if not isinstance(value, int) or isinstance(value, bool):
            return []
        if value < 0:
            return [FieldError.invalid(str(path), value, "should be a non-negative integer")]
        if value > MAX_INT32:
            return [FieldError.invalid(str(path), value, f"should be less than or equal to {MAX_INT32}")]
        return []

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        fields = super().selectable_fields(obj)
        for label, read in self._readers.items():
            fields[label] = read(obj)
        return fields

    def make_subresource(self, name: str) -> Strategy:
        return SchemaStatusStrategy(self) if name == "status" else CustomScaleStrategy(self)


class SchemaStatusStrategy(CustomStatusStrategy):
    """`…/status`, judged by the schema of `status` alone."""

    parent: SchemaStrategy

    def validate_status(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        if "status" in new:
            before = {"old": old["status"]} if "status" in old else {}
            errors += self.parent.custom.status_validator.validate(new["status"], "status", **before)
        errors += self.parent.scale_findings(new, "statusReplicasPath")
        errors += self._selector(new) + self.parent.new_duplicates(new, old)
        custom = self.parent.custom
        if custom.has_rules and any(error.reason in BLOCKING for error in errors):
            return [*errors, UNCHECKED]
        if custom.status_rules is not None and "status" in new:
            known = {"old": old["status"]} if "status" in old else {}
            errors += custom.status_rules.evaluate(new["status"], path="status", **known)
        return errors

    def _selector(self, obj: Obj) -> list[FieldError]:
        path = self.parent.custom.scale.get("labelSelectorPath")
        value = at(obj, field_path(path)) if path else None
        if not isinstance(value, str):
            return []
        try:
            LabelSelector.parse(value)
        except ValueError as error:
            return [FieldError.invalid(str(path), value, str(error))]
        return []


class CustomScaleStrategy(ScaleStrategy):
    """`…/scale` through the paths that the definition names."""

    parent: SchemaStrategy

    def __init__(self, parent: SchemaStrategy) -> None:
        super().__init__(parent)
        self.allow_unconditional_update = True
        paths = parent.custom.scale
        self._replicas = field_path(paths.get("specReplicasPath") or "")
        self._told = f'"{paths.get("specReplicasPath") or ""}"'
        self._current = field_path(paths.get("statusReplicasPath") or "")
        self._label_selector = field_path(paths.get("labelSelectorPath") or "")

    def view(self, parent: Obj) -> Obj:
        meta = parent["metadata"]
        replicas = at(parent, self._replicas)
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        status: Obj = {"replicas": at(parent, self._current) or 0}
        selector = at(parent, self._label_selector) if self._label_selector else None
        if isinstance(selector, str) and selector:
            status["selector"] = selector
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {key: meta[key] for key in kept if meta.get(key)},
            "spec": {"replicas": replicas} if isinstance(replicas, int) and replicas else {},
            "status": status,
        }

    def read(self, parent: Obj) -> Obj:
        if not isinstance(at(parent, self._replicas), int):
            raise InternalError.of(f"the spec replicas field {self._told} does not exist")
        return self.view(parent)

    def draft(self, parent: Obj) -> Obj:
        shown = self.view(parent)
        if not isinstance(at(parent, self._replicas), int):
            shown["spec"] = {"replicas": _UNSET}
        return shown

    def merge(self, ctx: RequestContext, parent: Obj, body: Obj) -> Obj:
        replicas = (body.get("spec") or {}).get("replicas") or 0
        if replicas == _UNSET:
            raise BadRequest(f"the spec replicas field {self._told} cannot be empty")
        merged = with_value(parent, self._replicas, replicas)
        merged["metadata"] = dict(parent["metadata"])
        merged["metadata"].pop("resourceVersion", None)
        if version := (body.get("metadata") or {}).get("resourceVersion"):
            merged["metadata"]["resourceVersion"] = version
        return merged
