"""ObjectMeta: what every object must have, at creation and on update.

Owns names, namespaces, labels, annotations, ownerReferences, finalizers and the immutable fields. Called by `Strategy`
for every write and by the pod template validation for labels and annotations. Hot path: known good keys and values are
remembered.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from apiserver.registry.validation.names import NameCheck, dns_label, label_value, qualified_name
from machinery.field_errors import FieldError

Obj = dict[str, Any]
TOTAL_ANNOTATION_SIZE = 256 * 1024
IMMUTABLE = "field is immutable"

_KNOWN_FINALIZERS = frozenset({"orphan", "foregroundDeletion", "kubernetes"})


def validate_labels(labels: Mapping[str, str] | None, path: str) -> list[FieldError]:
    """Keys are qualified names, values are label values."""
    errors: list[FieldError] = []
    for key, value in sorted((labels or {}).items()):
        errors += [FieldError.invalid(path, key, text) for text in qualified_name(key)]
        errors += [FieldError.invalid(path, value, text) for text in label_value(value or "")]
    return errors


def validate_annotations(annotations: Mapping[str, str] | None, path: str) -> list[FieldError]:
    """Keys are qualified names in any case; all together at most 256 KiB."""
    errors: list[FieldError] = []
    size = 0
    for key, value in (annotations or {}).items():
        errors += [FieldError.invalid(path, key, text) for text in qualified_name(key.lower())]
        size += len(key) + len(value or "")
    if size > TOTAL_ANNOTATION_SIZE:
        errors.append(FieldError.too_long(path, TOTAL_ANNOTATION_SIZE))
    return errors


def validate_owner_references(references: list[Obj], path: str) -> list[FieldError]:
    """Complete references, at most one controller, no Event as owner."""
    errors: list[FieldError] = []
    controller: Obj | None = None
    for reference in references:  # upstream names no index inside ownerReferences
        version, kind = reference.get("apiVersion") or "", reference.get("kind") or ""
        if version.count("/") > 1:
            errors.append(
                FieldError.invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}")
            )
        group_version = version if "/" in version else f"/{version}"
        if not group_version.rpartition("/")[2]:
            errors.append(FieldError.invalid(f"{path}.apiVersion", version, "version must not be empty"))
        if not kind:
            errors.append(FieldError.invalid(f"{path}.kind", "", "must not be empty"))
        if not reference.get("name"):
            errors.append(FieldError.invalid(f"{path}.name", "", "must not be empty"))
        if not reference.get("uid"):
            errors.append(FieldError.invalid(f"{path}.uid", "", "must not be empty"))
        if kind == "Event" and version in ("v1", "events.k8s.io/v1"):
            gvk = version if "/" in version else f"/{version}"
            errors.append(FieldError.invalid(path, reference, f"{gvk}, Kind=Event is disallowed from being an owner"))
        if reference.get("controller"):
            if controller is not None:
                first, second = (f"{owner.get('kind')}/{owner.get('name')}" for owner in (controller, reference))
                detail = (
                    'Only one reference can have Controller set to true. Found "true" in references for '
                    f"{first} and {second}"
                )
                errors.append(FieldError.invalid(path, references, detail))
            controller = reference
    return errors


def validate_finalizers(finalizers: list[str], path: str) -> list[FieldError]:
    """Qualified names (told without an index); the two garbage collection finalizers exclude each other."""
    errors = [FieldError.invalid(path, name, text) for name in finalizers for text in qualified_name(name)]
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        detail = "finalizer orphan and foregroundDeletion cannot be both set"
        errors.append(FieldError.invalid(path, finalizers, detail))
    return errors


def validate_standard_finalizers(finalizers: list[str], path: str) -> list[FieldError]:
    """Of the built-in kinds, finalizers without a slash are Kubernetes' own."""
    return [error for index, name in enumerate(finalizers) for error in standard_finalizer(name, f"{path}[{index}]")]


def standard_finalizer(name: str, path: str) -> list[FieldError]:
    """One of them."""
    if "/" in name or name in _KNOWN_FINALIZERS:
        return []
    detail = "name is neither a standard finalizer name nor is it fully qualified"
    return [FieldError.invalid(path, name, detail)]


def validate_finalizer_name(name: str, path: str) -> list[FieldError]:
    """A qualified name, with a slash unless it is one of Kubernetes' own."""
    return [FieldError.invalid(path, name, text) for text in qualified_name(name)] + standard_finalizer(name, path)


def validate_metadata(
    meta: Obj, namespaced: bool, check: NameCheck, path: str = "metadata", *, standard: bool = True
) -> list[FieldError]:
    """Everything about the metadata of a new object; `standard`: finalizers without a slash have to be Kubernetes'."""
    errors: list[FieldError] = []
    prefix = meta.get("generateName")
    if prefix:
        errors += [FieldError.invalid(f"{path}.generateName", prefix, text) for text in check(prefix, True)]
    name = meta.get("name")
    if not name:
        errors.append(FieldError.required(f"{path}.name", "name or generateName is required"))
    else:
        errors += [FieldError.invalid(f"{path}.name", name, text) for text in check(name, False)]
    namespace = meta.get("namespace")
    if namespaced:
        if not namespace:
            errors.append(FieldError.required(f"{path}.namespace", ""))
        else:
            errors += [FieldError.invalid(f"{path}.namespace", namespace, text) for text in dns_label(namespace)]
    elif namespace:
        errors.append(FieldError.forbidden(f"{path}.namespace", "not allowed on this type"))
    if (meta.get("generation") or 0) < 0:
        errors.append(
            FieldError.invalid(f"{path}.generation", meta["generation"], "must be greater than or equal to 0")
        )
    errors += _validate_common(meta, path)
    if finalizers := meta.get("finalizers"):
        errors += validate_finalizers(finalizers, f"{path}.finalizers")
        if standard:
            errors += validate_standard_finalizers(finalizers, f"{path}.finalizers")
    return errors


def _validate_common(meta: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if labels := meta.get("labels"):
        errors += validate_labels(labels, f"{path}.labels")
    if annotations := meta.get("annotations"):
        errors += validate_annotations(annotations, f"{path}.annotations")
    if references := meta.get("ownerReferences"):
        errors += validate_owner_references(references, f"{path}.ownerReferences")
    return errors


def inherit_metadata(new: Obj, old: Obj) -> None:
    """What a client may leave out of an update, or cannot change: taken over from the stored object."""
    for field in ("uid", "namespace"):
        if not new.get(field) and old.get(field):
            new[field] = old[field]
    if old.get("creationTimestamp"):
        new["creationTimestamp"] = old["creationTimestamp"]
    else:
        new.pop("creationTimestamp", None)
    if old.get("deletionTimestamp"):
        new["deletionTimestamp"] = old["deletionTimestamp"]
        if new.get("deletionGracePeriodSeconds") is None and old.get("deletionGracePeriodSeconds") is not None:
            new["deletionGracePeriodSeconds"] = old["deletionGracePeriodSeconds"]
    new.pop("selfLink", None)


_IMMUTABLE = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


class Passes(NamedTuple):
    """How often upstream looks at the metadata of an update: every look is a finding of its own."""

    updates: int = 2
    """As at what changes: the server's own look and those of the kind's rules."""
    wholes: int = 0
    """As at new metadata, by the kind's rules."""
    standard: bool = True
    """The kind's rules want finalizers without a slash to be Kubernetes'."""


TWICE = Passes()


def validate_metadata_update(new: Obj, old: Obj, passes: Passes = TWICE, path: str = "metadata") -> list[FieldError]:
    """Immutable fields, finalizers of an object being deleted, and the rules for new values."""
    once: list[FieldError] = []
    finalizers, known = new.get("finalizers") or [], old.get("finalizers") or []
    if old.get("deletionTimestamp"):
        added = sorted(name for name in finalizers if name not in known)
        if added:
            listed = ", ".join(f'"{name}"' for name in added)
            detail = (
                "no new finalizers can be added if the object is being deleted, found new finalizers "
                + f"[]string{{{listed}}}"
            )
            once.append(FieldError.forbidden(f"{path}.finalizers", detail))
    for field in _IMMUTABLE:
        if new.get(field) != old.get(field):
            once.append(FieldError.invalid(f"{path}.{field}", new.get(field), IMMUTABLE))
    changed = {field: new[field] for field in _LOOKED_AT if new.get(field) and new[field] != old.get(field)}
    errors = once * passes.updates + _validate_common(changed, path) * (passes.updates + passes.wholes)
    if finalizers and finalizers != known:
        errors += validate_finalizers(finalizers, f"{path}.finalizers") * passes.wholes
        if passes.standard:
            looks = passes.updates - 1 + passes.wholes
            errors += validate_standard_finalizers(finalizers, f"{path}.finalizers") * looks
    return errors


_LOOKED_AT = ("labels", "annotations", "ownerReferences")
