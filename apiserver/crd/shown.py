"""Versions of a definition as upstream prints its internal structs in error texts.

Pure. What all versions have in common lies outside of the versions there, so it is left out. Called when definitions
are validated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]

# Field of the struct, key of the document, what stands there when nothing is set.
SCHEMA_FIELDS: tuple[tuple[str, str, Any], ...] = (
    ("ID", "id", ""),
    ("Schema", "$schema", ""),
    ("Ref", "$ref", None),
    ("Description", "description", ""),
    ("Type", "type", ""),
    ("Nullable", "nullable", False),
    ("Format", "format", ""),
    ("Title", "title", ""),
    ("Default", "default", None),
    ("Maximum", "maximum", None),
    ("ExclusiveMaximum", "exclusiveMaximum", False),
    ("Minimum", "minimum", None),
    ("ExclusiveMinimum", "exclusiveMinimum", False),
    ("MaxLength", "maxLength", None),
    ("MinLength", "minLength", None),
    ("Pattern", "pattern", ""),
    ("MaxItems", "maxItems", None),
    ("MinItems", "minItems", None),
    ("UniqueItems", "uniqueItems", False),
    ("MultipleOf", "multipleOf", None),
    ("Enum", "enum", None),
    ("MaxProperties", "maxProperties", None),
    ("MinProperties", "minProperties", None),
    ("Required", "required", None),
    ("Items", "items", None),
    ("AllOf", "allOf", None),
    ("OneOf", "oneOf", None),
    ("AnyOf", "anyOf", None),
    ("Not", "not", None),
    ("Properties", "properties", None),
    ("AdditionalProperties", "additionalProperties", None),
    ("PatternProperties", "patternProperties", None),
    ("Dependencies", "dependencies", None),
    ("AdditionalItems", "additionalItems", None),
    ("Definitions", "definitions", None),
    ("ExternalDocs", "externalDocs", None),
    ("Example", "example", None),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields", None),
    ("XEmbeddedResource", "x-kubernetes-embedded-resource", False),
    ("XIntOrString", "x-kubernetes-int-or-string", False),
    ("XListMapKeys", "x-kubernetes-list-map-keys", None),
    ("XListType", "x-kubernetes-list-type", None),
    ("XMapType", "x-kubernetes-map-type", None),
    ("XValidations", "x-kubernetes-validations", None),
)
_PATHS = ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")


def shown_versions(versions: Sequence[Json]) -> list[dict[str, Any]]:
    """The versions as structs."""
    apart = {
        key: any(version.get(key) != versions[0].get(key) for version in versions)
        for key in ("schema", "subresources", "additionalPrinterColumns", "selectableFields")
    }
    return [
        {
            "Name": version.get("name") or "",
            "Served": bool(version.get("served")),
            "Storage": bool(version.get("storage")),
            "Deprecated": bool(version.get("deprecated")),
            "DeprecationWarning": version.get("deprecationWarning"),
            "Schema": _validation(version.get("schema")) if apart["schema"] else None,
            "Subresources": _subresources(version.get("subresources")) if apart["subresources"] else None,
            "AdditionalPrinterColumns": _columns(version) if apart["additionalPrinterColumns"] else None,
            "SelectableFields": _selectable(version) if apart["selectableFields"] else None,
        }
        for version in versions
    ]


def _validation(schema: Json | None) -> dict[str, Any] | None:
    found = (schema or {}).get("openAPIV3Schema")
    return {"OpenAPIV3Schema": shown_schema(found)} if isinstance(found, dict) else None


def shown_schema(schema: Json) -> dict[str, Any]:
    """A schema as struct."""
    made: dict[str, Any] = {}
    for name, key, empty in SCHEMA_FIELDS:
        value = schema.get(key)
        made[name] = empty if value is None else _value(name, value)
    return made


def _value(name: str, value: Any) -> Any:
    match name:
        case "Properties" | "PatternProperties" | "Definitions":
            return {key: shown_schema(child) for key, child in sorted(value.items())}
        case "AllOf" | "OneOf" | "AnyOf":
            return [shown_schema(child) for child in value]
        case "Not":
            return shown_schema(value)
        case "Items":
            return {"Schema": shown_schema(value), "JSONSchemas": None}
        case "AdditionalProperties" | "AdditionalItems":
            given = isinstance(value, dict)
            return {"Allows": True if given else value, "Schema": shown_schema(value) if given else None}
        case "XValidations":
            return [_rule(rule) for rule in value]
    return value


def _rule(rule: Json) -> dict[str, Any]:
    return {
        "Rule": rule.get("rule") or "",
        "Message": rule.get("message") or "",
        "MessageExpression": rule.get("messageExpression") or "",
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath") or "",
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }


def _subresources(offered: Json | None) -> dict[str, Any] | None:
    if offered is None:
        return None
    scale = offered.get("scale")
    shown = None
    if scale is not None:
        shown = {f"{key[0].upper()}{key[1:]}": scale.get(key) for key in _PATHS}
    return {"Status": offered.get("status"), "Scale": shown}


def _columns(version: Json) -> list[dict[str, Any]] | None:
    columns = version.get("additionalPrinterColumns")
    if not columns:
        return None
    texts = (("Name", "name"), ("Type", "type"), ("Format", "format"), ("Description", "description"))
    return [
        {
            **{name: column.get(key) or "" for name, key in texts},
            "Priority": column.get("priority") or 0,
            "JSONPath": column.get("jsonPath") or "",
        }
        for column in columns
    ]


def _selectable(version: Json) -> list[dict[str, Any]] | None:
    fields = version.get("selectableFields")
    return [{"JSONPath": item.get("jsonPath") or ""} for item in fields] if fields else None
