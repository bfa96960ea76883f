"""ObjectMeta: what every object must have, at creation and on update.

Owns names, namespaces, labels, annotations, ownerReferences, finalizers and the immutable fields. Called by `Strategy`
for every write and by the pod template validation for labels and annotations. Hot path: known good keys and values are
remembered.
"""

from collections.abc import Mapping
from typing import Any

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
    """Qualified names; the two garbage collection finalizers exclude each other."""
    errors: list[FieldError] = []
    for index, name in enumerate(finalizers):
        errors += validate_finalizer_name(name, f"{path}[{index}]")
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        detail = "finalizer orphan and foregroundDeletion cannot be both set"
        errors.append(FieldError.invalid(path, finalizers, detail))
    return errors


def validate_finalizer_name(name: str, path: str) -> list[FieldError]:
    """A qualified name, with a slash unless it is one of Kubernetes' own."""
    errors = [FieldError.invalid(path, name, text) for text in qualified_name(name)]
    if not errors and "/" not in name and name not in _KNOWN_FINALIZERS:
        errors.append(
            FieldError.invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified")
        )
    return errors


def validate_metadata(meta: Obj, namespaced: bool, check: NameCheck, path: str = "metadata") -> list[FieldError]:
    """Everything about the metadata of a new object."""
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
    return errors


def _validate_common(meta: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if labels := meta.get("labels"):
        errors += validate_labels(labels, f"{path}.labels")
    if annotations := meta.get("annotations"):
        errors += validate_annotations(annotations, f"{path}.annotations")
    if references := meta.get("ownerReferences"):
        errors += validate_owner_references(references, f"{path}.ownerReferences")
    if finalizers := meta.get("finalizers"):
        errors += validate_finalizers(finalizers, f"{path}.finalizers")
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


def validate_metadata_update(new: Obj, old: Obj, path: str = "metadata") -> list[FieldError]:
    """Immutable fields, finalizers of an object being deleted, and the rules for new values."""
    errors: list[FieldError] = []
    if old.get("deletionTimestamp"):
        known = old.get("finalizers") or []
        added = sorted(name for name in new.get("finalizers") or [] if name not in known)
        if added:
            listed = ", ".join(f'"{name}"' for name in added)
            detail = (
                "no new finalizers can be added if the object is being deleted, found new finalizers "
                + f"[]string{{{listed}}}"
            )
            errors.append(FieldError.forbidden(f"{path}.finalizers", detail))
    for field in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if new.get(field) != old.get(field):
            errors.append(FieldError.invalid(f"{path}.{field}", new.get(field), IMMUTABLE))
    if new.get("labels") != old.get("labels"):
        errors += validate_labels(new.get("labels"), f"{path}.labels")
    if new.get("annotations") != old.get("annotations"):
        errors += validate_annotations(new.get("annotations"), f"{path}.annotations")
    if (references := new.get("ownerReferences")) and references != old.get("ownerReferences"):
        errors += validate_owner_references(references, f"{path}.ownerReferences")
    if (finalizers := new.get("finalizers")) and finalizers != old.get("finalizers"):
        errors += validate_finalizers(finalizers, f"{path}.finalizers")
    return errors
