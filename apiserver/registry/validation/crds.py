"""CustomResourceDefinitions: names, versions, and that schemas are structural.

Owns what can be said without the CEL compiler. Called by the CRD strategy.
"""

import re
from typing import Any
from urllib.parse import urlsplit

from apiserver.crd.schema_check import check_schema
from apiserver.crd.shown import shown_versions
from apiserver.registry.validation import names
from apiserver.registry.validation.extensions import validate_client
from apiserver.registry.validation.fields import check_enum, check_immutable
from machinery.field_errors import FieldError

Obj = dict[str, Any]
APPROVED = "api-approved.kubernetes.io"
_REVIEW_VERSIONS = ("v1", "v1beta1")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SIMPLE_PATH = re.compile(r"(\.[A-Za-z_][\w-]*)+", re.ASCII)
_MAX_SELECTABLE = 8


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
    if spec.get("preserveUnknownFields"):
        errors.append(FieldError.invalid("spec.preserveUnknownFields", True, "must be false"))
    approved, why = approval(group, meta.get("annotations") or {})
    if approved in ("MissingAnnotation", "InvalidAnnotation"):
        at, given = f"metadata.annotations[{APPROVED}]", (meta.get("annotations") or {}).get(APPROVED)
        errors.append(FieldError.invalid(at, given, why) if given else FieldError.required(at, why))
    return errors


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
        errors += _validate_offers(version, path)
        if texts := names.dns_1035_label(name):
            errors.append(FieldError.invalid(f"{path}.name", name, ",".join(texts)))
        if name in seen:
            detail = "must contain unique version names"
            errors.append(FieldError.invalid("spec.versions", shown_versions(versions), detail))
        seen.add(name)
        if schema is None:
            errors.append(FieldError.required(f"{path}.schema.openAPIV3Schema"))
        elif not shared or index == 0:
            at = "spec.validation.openAPIV3Schema" if shared else f"{path}.schema.openAPIV3Schema"
            errors += check_schema(schema, at)
    stored = [version.get("name") for version in versions if version.get("storage")]
    if len(stored) != 1:
        detail = "must have exactly one version marked as storage version"
        errors.append(FieldError.invalid("spec.versions", shown_versions(versions), detail))
        if not stored:
            detail = "must have at least one stored version"
            errors.append(FieldError.invalid("status.storedVersions", None, detail))
    return errors


def _validate_offers(version: Obj, path: str) -> list[FieldError]:
    """Columns, subresources and selectable fields of a version."""
    errors: list[FieldError] = []
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        at = f"{path}.additionalPrinterColumns[{index}]"
        for field in ("name", "type", "jsonPath"):
            if not column.get(field):
                errors.append(FieldError.required(f"{at}.{field}"))
        for field, valid in (("type", _COLUMN_TYPES), ("format", _COLUMN_FORMATS)):
            if column.get(field) and column[field] not in valid:
                errors.append(FieldError.invalid(f"{at}.{field}", column[field], f"must be one of {','.join(valid)}"))
    scale = (version.get("subresources") or {}).get("scale")
    if scale is not None:
        at = f"{path}.subresources.scale"
        errors += _validate_path(scale.get("specReplicasPath"), f"{at}.specReplicasPath", (".spec.",), required=True)
        statuses, either = (".status.",), (".spec.", ".status.")
        errors += _validate_path(scale.get("statusReplicasPath"), f"{at}.statusReplicasPath", statuses, required=True)
        errors += _validate_path(scale.get("labelSelectorPath"), f"{at}.labelSelectorPath", either)
    errors += _validate_selectable(version, path)
    return errors


def _validate_path(value: str | None, path: str, roots: tuple[str, ...], *, required: bool = False) -> list[FieldError]:
    if not value:
        return [FieldError.required(path)] if required else []
    if not _SIMPLE_PATH.fullmatch(value):
        return [FieldError.invalid(path, value, "is an invalid path: only simple paths are supported")]
    if not value.startswith(roots):
        named = " or ".join(root.rstrip(".") for root in roots)
        either = "either " if len(roots) > 1 else ""
        return [FieldError.invalid(path, value, f"should be a json path under {either}{named}")]
    return []


def _validate_selectable(version: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    fields = version.get("selectableFields") or []
    if len(fields) > _MAX_SELECTABLE:
        errors.append(FieldError.too_many(f"{path}.selectableFields", len(fields), _MAX_SELECTABLE))
    seen: set[str] = set()
    for index, item in enumerate(fields):
        at, value = f"{path}.selectableFields[{index}].jsonPath", item.get("jsonPath") or ""
        if not value:
            errors.append(FieldError.required(at))
            continue
        if value in seen:
            errors.append(FieldError.duplicate(at, value))
        seen.add(value)
        if not _SIMPLE_PATH.fullmatch(value):
            errors.append(FieldError.invalid(at, value, "is an invalid path: only simple paths are supported"))
            continue
        node: Any = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        for part in value[1:].split("."):
            node = (node.get("properties") or {}).get(part) if isinstance(node, dict) else None
        if value.startswith(".metadata"):
            errors.append(FieldError.invalid(at, value, "must not point to fields in metadata"))
        elif node is None:
            errors.append(FieldError.invalid(at, value, "is an invalid path: does not refer to a valid field"))
        elif node.get("type") not in ("string", "boolean", "integer"):
            errors.append(FieldError.invalid(at, value, "must point to a field of type string, boolean or integer"))
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
    strategy, webhook = conversion.get("strategy"), conversion.get("webhook")
    errors = check_enum(f"{path}.strategy", strategy, ("None", "Webhook"), required=True)
    client = (webhook or {}).get("clientConfig")
    if strategy == "Webhook":
        if client is None:
            detail = "required when strategy is set to Webhook"
            errors.append(FieldError.required(f"{path}.webhookClientConfig", detail))
        else:
            errors += validate_client(client, f"{path}.webhookClientConfig")
        errors += _validate_review_versions((webhook or {}).get("conversionReviewVersions") or [], path)
    elif webhook is not None:
        detail = "should not be set when strategy is not set to Webhook"
        if client is not None:
            errors.append(FieldError.forbidden(f"{path}.webhookClientConfig", detail))
        if webhook.get("conversionReviewVersions"):
            errors.append(FieldError.forbidden(f"{path}.conversionReviewVersions", detail))
    return errors


def _validate_review_versions(versions: list[str], path: str) -> list[FieldError]:
    at = f"{path}.conversionReviewVersions"
    if not versions:
        return [FieldError.required(at)]
    errors: list[FieldError] = []
    for index, version in enumerate(versions):
        if version in versions[:index]:
            errors.append(FieldError.invalid(f"{at}[{index}]", version, "duplicate version"))
        elif texts := names.dns_1035_label(version):
            errors.append(FieldError.invalid(f"{at}[{index}]", version, ",".join(texts)))
    if not any(version in _REVIEW_VERSIONS for version in versions):
        detail = f"must include at least one of {', '.join(_REVIEW_VERSIONS)}"
        errors.append(FieldError.invalid(at, versions, detail))
    return errors


def approval(group: str, annotations: dict[str, str]) -> tuple[str, str]:
    """Reason and message of the condition KubernetesAPIApprovalPolicyConformant; empty where nobody has to approve."""
    if not (group.endswith((".k8s.io", ".kubernetes.io")) or group in ("k8s.io", "kubernetes.io")):
        return "", ""
    see = "see https://github.com/kubernetes/enhancements/pull/1111"
    given = annotations.get(APPROVED) or ""
    if not given:
        return "MissingAnnotation", f'protected groups must have approval annotation "{APPROVED}", {see}'
    if given.startswith("unapproved"):
        return "UnapprovedAnnotation", f'not approved: "{given}"'
    try:
        parts = urlsplit(given)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme and parts.netloc:
        return "ApprovedAnnotation", f"approved in {given}"
    wanted = 'with either a URL or a reason starting with "unapproved"'
    return "InvalidAnnotation", f'protected groups must have approval annotation "{APPROVED}" {wanted}, {see}'


def validate_crd_update(new: Obj, old: Obj) -> list[FieldError]:
    """Group, plural, kind and scope of an established definition stay; stored versions stay defined."""
    # What is stored is known by now: only a new definition can lack it.
    ignored = {"status.storedVersions"}
    if (old.get("spec") or {}).get("preserveUnknownFields"):
        ignored.add("spec.preserveUnknownFields")  # what an older server has let pass may stay
    errors = [error for error in validate_crd(new) if error.field not in ignored]
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
