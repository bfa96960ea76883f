"""CustomResourceDefinitions: names, versions, and that schemas are structural.

Owns what can be said without the CEL compiler. Called by the CRD strategy.
"""

import re
from typing import Any
from urllib.parse import urlsplit

from apiserver.crd.schema_check import check_schema
from apiserver.crd.shown import SCHEMA_FIELDS, shown_schema, shown_versions
from apiserver.registry.validation import names
from apiserver.registry.validation.extensions import validate_client
from apiserver.registry.validation.fields import check_enum, check_immutable, invalid_each
from machinery.field_errors import FieldError

Obj = dict[str, Any]
APPROVED = "api-approved.kubernetes.io"
_REVIEW_VERSIONS = ("v1", "v1beta1")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SIMPLE_PATH = re.compile(r"(\.[A-Za-z_][\w-]*)+", re.ASCII)
_MAX_SELECTABLE = 8
_SELECTABLE = (
    "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."
)
_LONGEST_WARNING = 256
_SHARED = ("schema", "subresources", "additionalPrinterColumns", "selectableFields")
_AT_ROOT = (
    "Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum", "MaxLength",
    "MinLength", "Pattern", "MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required", "Items", "Properties",
    "ExternalDocs", "Example", "XPreserveUnknownFields", "XValidations",
)  # fmt: skip


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
    errors += _validate_versions(spec.get("versions") or [])
    errors += [
        FieldError.required(f"spec.names.{field}")
        for field in ("plural", "singular", "kind", "listKind")
        if not crd_names.get(field)
    ]
    errors += _validate_names(crd_names, "spec.names")
    errors += _validate_shared(spec.get("versions") or [])
    errors += _validate_conversion(spec.get("conversion") or {}, "spec.conversion")
    if spec.get("preserveUnknownFields"):
        errors.append(FieldError.invalid("spec.preserveUnknownFields", True, "must be false"))
    approved, why = approval(group, meta.get("annotations") or {})
    if approved in ("MissingAnnotation", "InvalidAnnotation"):
        at, given = f"metadata.annotations[{APPROVED}]", (meta.get("annotations") or {}).get(APPROVED)
        errors.append(FieldError.invalid(at, given, why) if given else FieldError.required(at, why))
    return errors


def _validate_versions(versions: list[Obj]) -> list[FieldError]:
    """The versions and what each has of its own; what all have alike lies outside of them."""
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") for version in versions]
    errors = [
        FieldError.required(f"spec.versions[{index}].schema.openAPIV3Schema")
        for index, schema in enumerate(schemas)
        if schema is None
    ]
    apart = {key for key in _SHARED if not _alike(versions, key)}
    listed: list[str] = []
    for index, version in enumerate(versions):
        path, name = f"spec.versions[{index}]", version.get("name") or ""
        if texts := names.dns_1035_label(name):
            errors.append(FieldError.invalid(f"{path}.name", name, ",".join(texts)))
        listed.append(name)
        errors += _validate_warning(version, f"{path}.deprecationWarning")
        errors += _validate_offers(version, apart, path, "schema", _has_status(version))
    if len(set(listed)) != len(listed):
        detail = "must contain unique version names"
        errors.append(FieldError.invalid("spec.versions", shown_versions(versions), detail))
    stored = [version.get("name") for version in versions if version.get("storage")]
    if len(stored) != 1:
        detail = "must have exactly one version marked as storage version"
        errors.append(FieldError.invalid("spec.versions", shown_versions(versions) if versions else None, detail))
        if not stored:
            detail = "must have at least one stored version"
            errors.append(FieldError.invalid("status.storedVersions", None, detail))
    if listed and listed[0] and (texts := names.dns_1035_label(listed[0])):  # upstream names the first one twice
        errors.append(FieldError.invalid("spec.version", listed[0], ",".join(texts)))
    return errors


def _alike(versions: list[Obj], key: str) -> bool:
    return all((version.get(key) or None) == (versions[0].get(key) or None) for version in versions)


def _has_status(version: Obj) -> bool:
    return (version.get("subresources") or {}).get("status") is not None


def _validate_shared(versions: list[Obj]) -> list[FieldError]:
    """What all versions have alike."""
    if not versions:
        return []
    shared = {key for key in _SHARED if _alike(versions, key)}
    status = any(_has_status(version) for version in versions)
    return _validate_offers(versions[0], shared, "spec", "validation", status)


def _validate_warning(version: Obj, path: str) -> list[FieldError]:
    text = version.get("deprecationWarning")
    if text is None:
        return []
    if not version.get("deprecated"):
        return [FieldError.invalid(path, text, "can only be set for deprecated versions")]
    errors: list[FieldError] = []
    if len(text.encode()) > _LONGEST_WARNING:
        errors.append(FieldError.invalid(path, text, f"must be <= {_LONGEST_WARNING} characters long"))
    if not text:
        errors.append(FieldError.invalid(path, text, "must not be an empty string"))
    bad = next((index for index, letter in enumerate(text) if letter != " " and not letter.isprintable()), None)
    if bad is not None:
        at = len(text[:bad].encode())
        detail = f"must only contain printable UTF-8 characters; non-printable character found at index {at}"
        errors.append(FieldError.invalid(path, text, detail))
    return errors


def _validate_offers(version: Obj, keys: set[str], path: str, where: str, status: bool) -> list[FieldError]:
    """Schema, subresources, columns and selectable fields, as far as they are among `keys`."""
    errors: list[FieldError] = []
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if "schema" in keys and schema is not None:
        errors += _validate_root(schema, f"{path}.{where}", status)
        errors += check_schema(schema, f"{path}.{where}.openAPIV3Schema")
    scale = (version.get("subresources") or {}).get("scale")
    if "subresources" in keys and scale is not None:
        at = f"{path}.subresources.scale"
        errors += _validate_path(scale.get("specReplicasPath"), f"{at}.specReplicasPath", (".spec.",), required=True)
        statuses, either = (".status.",), (".spec.", ".status.")
        errors += _validate_path(scale.get("statusReplicasPath"), f"{at}.statusReplicasPath", statuses, required=True)
        errors += _validate_path(scale.get("labelSelectorPath"), f"{at}.labelSelectorPath", either)
    if "additionalPrinterColumns" in keys:
        for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
            errors += _validate_column(column, f"{path}.additionalPrinterColumns[{index}]")
    if "selectableFields" in keys and version.get("selectableFields"):
        errors += _validate_selectable(version["selectableFields"], schema, f"{path}.selectableFields")
    return errors


def _validate_root(schema: Obj, path: str, status: bool) -> list[FieldError]:
    """Where the status is a subresource of its own, the root says nothing that would be lost without it."""
    errors: list[FieldError] = []
    if status:
        for name, key, _ in SCHEMA_FIELDS:
            value = schema.get(key)
            if value in (None, "", False, [], {}):
                continue
            if name == "Type" and value != "object":
                where = "at the root of the schema if the status subresource is enabled"
                detail = f'only "object" is allowed as the type {where}'
                errors.append(FieldError.invalid(f"{path}.openAPIV3Schema.type", value, detail))
                break
            if name not in _AT_ROOT:
                detail = (
                    f"only [{' '.join(_AT_ROOT)}] fields are allowed at the root of the schema if the status "
                    "subresource is enabled"
                )
                errors.append(FieldError.invalid(f"{path}.openAPIV3Schema", shown_schema(schema), detail))
                break
    if schema.get("nullable"):
        detail = "nullable cannot be true at the root"
        errors.append(FieldError.forbidden(f"{path}.openAPIV3Schema.nullable", detail))
    return errors


def _validate_column(column: Obj, path: str) -> list[FieldError]:
    errors = [] if column.get("name") else [FieldError.required(f"{path}.name")]
    kind, detail = column.get("type"), f"must be one of {','.join(_COLUMN_TYPES)}"
    if not kind:
        errors.append(FieldError.required(f"{path}.type", detail))
    elif kind not in _COLUMN_TYPES:
        errors.append(FieldError.invalid(f"{path}.type", kind, detail))
    if (form := column.get("format")) and form not in _COLUMN_FORMATS:
        errors.append(FieldError.invalid(f"{path}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}"))
    return errors + _validate_path(column.get("jsonPath"), f"{path}.JSONPath", ("",), required=True)


def _validate_path(value: str | None, path: str, roots: tuple[str, ...], *, required: bool = False) -> list[FieldError]:
    if not value:
        return [FieldError.required(path)] if required else []
    if not value.startswith("."):
        return [FieldError.invalid(path, value, "must be a simple json path starting with .")]
    if not value.startswith(roots):
        named = " or ".join(root.rstrip(".") for root in roots)
        either = "either " if len(roots) > 1 else ""
        return [FieldError.invalid(path, value, f"should be a json path under {either}{named}")]
    return []


def _validate_selectable(fields: list[Obj], schema: Obj | None, path: str) -> list[FieldError]:
    if schema is None:
        detail = "selectableFields may only be set when version.schema.openAPIV3Schema is not included"
        return [FieldError.invalid(path, "", detail)]
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, item in enumerate(fields):
        at, value = f"{path}[{index}].jsonPath", item.get("jsonPath") or ""
        if not value:
            errors.append(FieldError.required(at))
            continue
        if not _SIMPLE_PATH.fullmatch(value):
            errors.append(FieldError.invalid(at, value, "is an invalid path: only simple paths are supported"))
            continue
        node: Any = schema
        for part in value[1:].split("."):
            node = (node.get("properties") or {}).get(part) if isinstance(node, dict) else None
        if node is None and not value.startswith(".metadata"):
            errors.append(FieldError.invalid(at, value, "is an invalid path: does not refer to a valid field"))
            continue
        if value.startswith(".metadata"):
            errors.append(FieldError.invalid(at, value, "must not point to fields in metadata"))
        elif node.get("type") not in ("string", "boolean", "integer"):
            errors.append(FieldError.invalid(at, value, _SELECTABLE))
        if value in seen:
            errors.append(FieldError.duplicate(at, value))
        seen.add(value)
    if len(seen) > _MAX_SELECTABLE:
        errors.append(FieldError.too_many(path, len(seen), _MAX_SELECTABLE))
    return errors


def _validate_names(crd_names: Obj, path: str) -> list[FieldError]:
    """Names as far as they are given: those wanted and those a definition got."""
    errors: list[FieldError] = []
    for field in ("plural", "singular", "kind", "listKind"):
        value, mixed = crd_names.get(field) or "", field in ("kind", "listKind")
        if value and (texts := names.dns_1035_label(value.lower() if mixed else value)):
            detail = "may have mixed case, but should otherwise match: " if mixed else ""
            errors.append(FieldError.invalid(f"{path}.{field}", value, detail + ",".join(texts)))
    errors += _validate_labels(crd_names, path, "shortNames")
    if crd_names.get("kind") and crd_names.get("kind") == crd_names.get("listKind"):
        detail = "kind and listKind may not be the same"
        errors.append(FieldError.invalid(f"{path}.listKind", crd_names["listKind"], detail))
    return errors + _validate_labels(crd_names, path, "categories")


def _validate_labels(crd_names: Obj, path: str, field: str) -> list[FieldError]:
    return [
        FieldError.invalid(f"{path}.{field}[{index}]", value, ",".join(texts))
        for index, value in enumerate(crd_names.get(field) or ())
        if (texts := names.dns_1035_label(value))
    ]


def validate_crd_status(new: Obj, old: Obj) -> list[FieldError]:
    """The names a definition got."""
    return _validate_names((new.get("status") or {}).get("acceptedNames") or {}, "status.acceptedNames")


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
        else:
            errors += invalid_each(f"{at}[{index}]", version, names.dns_1035_label(version))
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
