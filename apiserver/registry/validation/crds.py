"""CustomResourceDefinitions: names, versions, and that schemas are structural.

Owns what can be said without the CEL compiler. Called by the CRD strategy.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.expressions import check_expression
from apiserver.registry.validation.fields import check_enum, check_immutable
from machinery.field_errors import FieldError, go_value

Obj = dict[str, Any]
_APPROVED = "api-approved.kubernetes.io"
_TYPES = ("array", "boolean", "integer", "number", "object", "string")


def validate_crd(obj: Obj) -> list[FieldError]:
    """apiextensions.k8s.io/v1 CustomResourceDefinition."""
    spec, meta = obj.get("spec") or {}, obj["metadata"]
    crd_names = spec.get("names") or {}
    plural, group = crd_names.get("plural") or "", spec.get("group") or ""
    errors: list[FieldError] = []
    if (name := meta.get("name") or "") != f"{plural}.{group}":
        detail = 'must be spec.names.plural+"."+spec.group'
        errors.append(FieldError.invalid("metadata.name", name, detail))
    if not group:
        errors.append(FieldError.required("spec.group"))
    elif texts := names.dns_subdomain(group):
        errors.append(FieldError.invalid("spec.group", group, ",".join(texts)))
    elif "." not in group:
        errors.append(FieldError.invalid("spec.group", group, "should be a domain with at least one dot"))
    errors += check_enum("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"), required=True)
    versions = spec.get("versions") or []
    errors += _validate_versions(versions)
    errors += _validate_names(crd_names, "spec.names")
    errors += _validate_conversion(spec.get("conversion") or {}, "spec.conversion")
    if (group.endswith((".k8s.io", ".kubernetes.io")) or group in ("k8s.io", "kubernetes.io")) and not (
        meta.get("annotations") or {}
    ).get(_APPROVED):
        detail = (
            f'protected groups must have approval annotation "{_APPROVED}", '
            "see https://github.com/kubernetes/enhancements/pull/1111"
        )
        errors.append(FieldError.required(f"metadata.annotations[{_APPROVED}]", detail))
    return errors


def _shown(version: Obj) -> Obj:
    """A version as upstream's internal struct: one schema for all lives outside of it."""
    return {
        "Name": version.get("name") or "",
        "Served": bool(version.get("served")),
        "Storage": bool(version.get("storage")),
        "Deprecated": bool(version.get("deprecated")),
        "DeprecationWarning": version.get("deprecationWarning"),
        "Schema": None,
        "Subresources": None,
        "AdditionalPrinterColumns": None,
        "SelectableFields": None,
    }


def _validate_versions(versions: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    if not versions:
        return [FieldError.required("spec.versions", "must have at least one version")]
    seen: set[str] = set()
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") for version in versions]
    shared = all(schema == schemas[0] for schema in schemas)
    for index, (version, schema) in enumerate(zip(versions, schemas, strict=True)):
        path = f"spec.versions[{index}]"
        name = version.get("name") or ""
        if texts := names.dns_1035_label(name):
            errors.append(FieldError.invalid(f"{path}.name", name, ",".join(texts)))
        if name in seen:
            detail = "must contain unique version names"
            errors.append(FieldError.invalid("spec.versions", [_shown(item) for item in versions], detail))
        seen.add(name)
        if schema is None:
            errors.append(FieldError.required(f"{path}.schema.openAPIV3Schema"))
        elif not shared or index == 0:
            at = "spec.validation.openAPIV3Schema" if shared else f"{path}.schema.openAPIV3Schema"
            errors += _validate_root(schema, at)
    stored = [version.get("name") for version in versions if version.get("storage")]
    if len(stored) != 1:
        detail = "must have exactly one version marked as storage version"
        errors.append(FieldError.invalid("spec.versions", [_shown(item) for item in versions], detail))
        if not stored:
            detail = "must have at least one stored version"
            errors.append(FieldError.invalid("status.storedVersions", None, detail))
    return errors


def _validate_names(crd_names: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("plural", "singular", "kind", "listKind"):
        value = crd_names.get(field) or ""
        checked = value.lower() if field in ("kind", "listKind") else value
        if not value and field in ("plural", "kind", "singular", "listKind"):
            if field in ("plural", "kind"):
                errors.append(FieldError.required(f"{path}.{field}"))
        elif texts := names.dns_1035_label(checked):
            detail = "may have mixed case, but should otherwise match: " if checked != value else ""
            errors.append(FieldError.invalid(f"{path}.{field}", value, detail + ",".join(texts)))
    if crd_names.get("kind") and crd_names.get("kind") == crd_names.get("listKind"):
        detail = "kind and listKind may not be the same"
        errors.append(FieldError.invalid(f"{path}.listKind", crd_names["listKind"], detail))
    for field in ("shortNames", "categories"):
        for index, value in enumerate(crd_names.get(field) or ()):
            if texts := names.dns_1035_label(value):
                errors.append(FieldError.invalid(f"{path}.{field}[{index}]", value, ",".join(texts)))
    return errors


def _validate_conversion(conversion: Obj, path: str) -> list[FieldError]:
    strategy = conversion.get("strategy")
    errors = check_enum(f"{path}.strategy", strategy, ("None", "Webhook"), required=True)
    if strategy == "Webhook" and conversion.get("webhook") is None:
        detail = "required when strategy is set to Webhook"
        errors.append(FieldError.required(f"{path}.webhook.clientConfig", detail))
    return errors


def _validate_root(schema: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    kind = schema.get("type")
    if kind != "object":
        if kind:
            errors.append(FieldError.invalid(f"{path}.type", kind, "must be object at the root"))
        else:
            errors.append(FieldError.required(f"{path}.type", "must not be empty at the root"))
    return errors + _validate_schema(schema, path, root=True)


def _validate_schema(schema: Obj, path: str, *, root: bool = False) -> list[FieldError]:
    """Structural: every value has a type, objects have properties or additionalProperties, not both."""
    errors: list[FieldError] = []
    kind = schema.get("type")
    if kind is not None and kind not in _TYPES:
        errors.append(FieldError(f"{path}.type", "FieldValueNotSupported", _unsupported_type(kind)))
    if schema.get("default") is not None and (wrong := _type_error(schema["default"], schema)):
        errors.append(FieldError(f"{path}.default", "FieldValueTypeInvalid", wrong))
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        errors += check_expression(f"{path}.x-kubernetes-validations[{index}].rule", rule.get("rule") or "")
    if properties and extra is not None and extra is not False:
        detail = "additionalProperties and properties are mutual exclusive"
        errors.append(FieldError.forbidden(f"{path}.additionalProperties", detail))
    if schema.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        errors.append(FieldError.forbidden(f"{path}.uniqueItems", detail))
    if kind == "array" and schema.get("items") is None:
        errors.append(FieldError.required(f"{path}.items", "must be specified"))
    for name, child in properties.items():
        if root and name in ("metadata", "apiVersion", "kind"):
            continue
        errors += _typed(child, f"{path}.properties[{name}]", "for specified object fields")
    if isinstance(extra, dict):
        errors += _typed(extra, f"{path}.additionalProperties", "for specified object fields")
    if isinstance(items := schema.get("items"), dict):
        errors += _typed(items, f"{path}.items", "for specified array items")
    return errors


def _typed(schema: Obj, path: str, where: str) -> list[FieldError]:
    errors: list[FieldError] = []
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not free:
        errors.append(FieldError.required(f"{path}.type", f"must not be empty {where}"))
    return errors + _validate_schema(schema, path)


def _unsupported_type(kind: Any) -> str:
    listed = ", ".join(go_value(item) for item in _TYPES)
    return f"Unsupported value: {go_value(kind)}: supported values: {listed}"


_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}


def _type_error(value: Any, schema: Obj) -> str:
    kind = schema.get("type")
    wanted = _PYTHON_TYPES.get(kind or "")
    if wanted is None:
        return ""
    fits = isinstance(value, wanted) and (kind == "boolean" or not isinstance(value, bool))
    if fits:
        return ""
    actual = next((name for name, types in _PYTHON_TYPES.items() if isinstance(value, types)), "null")
    return f'Invalid value: "{actual}":  in body must be of type {kind}: "{actual}"'


def validate_crd_update(new: Obj, old: Obj) -> list[FieldError]:
    """Group, plural, kind and scope of an established definition stay; stored versions stay defined."""
    # What is stored is known by now: only a new definition can lack it.
    errors = [error for error in validate_crd(new) if error.field != "status.storedVersions"]
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    conditions = (old.get("status") or {}).get("conditions") or ()
    established = any(item.get("type") == "Established" and item.get("status") == "True" for item in conditions)
    if established:
        errors += check_immutable("spec.scope", spec.get("scope"), before.get("scope"))
        after_kind, kind = (part.get("names", {}).get("kind") for part in (spec, before))
        errors += check_immutable("spec.names.kind", after_kind, kind)
    errors += check_immutable("spec.group", spec.get("group"), before.get("group"))
    after_plural, plural = (part.get("names", {}).get("plural") for part in (spec, before))
    errors += check_immutable("spec.names.plural", after_plural, plural)
    defined = {version.get("name") for version in spec.get("versions") or ()}
    for index, version in enumerate((old.get("status") or {}).get("storedVersions") or ()):
        if version not in defined:
            path = f"status.storedVersions[{index}]"
            detail = (
                f"missing from spec.versions; {version} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {version} and removes "
                f"{version} from status.storedVersions"
            )
            errors.append(FieldError.invalid(path, version, detail))
    return errors
