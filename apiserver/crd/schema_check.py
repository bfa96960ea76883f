"""Is a definition's schema structural, and does it make sense? Findings in upstream's words.

Owns everything about `openAPIV3Schema`: types, forbidden keywords, lists and maps, embedded resources, logical
combinations, defaults and expressions. Called when definitions are created and updated.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from apiserver.crd.formats import compile_pattern
from apiserver.crd.structural import Structural, prune
from apiserver.crd.validation import Validator
from apiserver.registry.validation.fields import unsupported
from machinery.field_errors import FieldError

Json = Mapping[str, Any]
TYPES = ("array", "boolean", "integer", "number", "object", "string")
SCALARS = frozenset(("boolean", "integer", "number", "string"))
REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")

_UNSUPPORTED = {
    "id": "id is not supported",
    "additionalItems": "additionalItems is not supported",
    "patternProperties": "patternProperties is not supported",
    "definitions": "definitions is not supported",
    "dependencies": "dependencies is not supported",
    "$ref": "$ref is not supported",
}
# What a branch of allOf, anyOf, oneOf or not must leave to the schema around it.
_OUTSIDE = (
    "type",
    "description",
    "title",
    "default",
    "nullable",
    "additionalProperties",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)
_INT_OR_STRING = ([{"type": "integer"}, {"type": "string"}], [{"type": "string"}, {"type": "integer"}])


def check_schema(schema: Json, path: str) -> list[FieldError]:
    """Findings about the schema of a version."""
    kind = schema.get("type")
    errors: list[FieldError] = []
    if not kind:
        errors.append(FieldError.required(f"{path}.type", "must not be empty at the root"))
    elif kind != "object":
        errors.append(FieldError.invalid(f"{path}.type", kind, "must be object at the root"))
    return errors + _node(schema, path, root=True)


def _node(schema: Json, path: str, *, root: bool = False, correlated: bool = True) -> list[FieldError]:
    errors = _keywords(schema, path)
    errors += _extensions(schema, path)
    errors += _lists(schema, path)
    errors += _default(schema, path)
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        errors += _rule(rule, f"{path}.x-kubernetes-validations[{index}]", path, correlated=correlated)
    errors += _combinations(schema, path)
    for name, child in (schema.get("properties") or {}).items():
        at = f"{path}.properties[{name}]"
        if root and name in ("apiVersion", "kind", "metadata"):
            errors += _object_field(name, child, at)
            continue
        errors += _typed(child, at, "for specified object fields", correlated)
    if isinstance(extra := schema.get("additionalProperties"), dict):
        errors += _typed(extra, f"{path}.additionalProperties", "for specified object fields", correlated)
    if isinstance(items := schema.get("items"), dict):
        still = correlated and schema.get("x-kubernetes-list-type") == "map"
        errors += _typed(items, f"{path}.items", "for specified array items", still)
    return errors


def _typed(schema: Json, path: str, where: str, correlated: bool) -> list[FieldError]:
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    missing = not schema.get("type") and not free
    errors = [FieldError.required(f"{path}.type", f"must not be empty {where}")] if missing else []
    return errors + _node(schema, path, correlated=correlated)


def _object_field(name: str, schema: Json, path: str) -> list[FieldError]:
    """apiVersion, kind and metadata of the root are every object's."""
    wanted = "object" if name == "metadata" else "string"
    kind = schema.get("type")
    errors = [] if kind == wanted else [FieldError.invalid(f"{path}.type", kind or "", f"must be {wanted}")]
    if name == "metadata":
        allowed = {"type", "properties", "description"}
        if set(schema) - allowed or set(schema.get("properties") or {}) - {"name", "generateName"}:
            text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            errors.append(FieldError.forbidden(path, text))
    return errors


def _keywords(schema: Json, path: str) -> list[FieldError]:
    errors = [FieldError.forbidden(f"{path}.{key}", text) for key, text in _UNSUPPORTED.items() if schema.get(key)]
    kind = schema.get("type")
    if kind == "null":
        text = "type cannot be set to null, use nullable as an alternative"
        errors.append(FieldError.forbidden(f"{path}.type", text))
    elif kind and kind not in TYPES:
        errors.append(unsupported(f"{path}.type", kind, TYPES))
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        errors.append(FieldError.forbidden(f"{path}.uniqueItems", text))
    extra = schema.get("additionalProperties")
    if extra is False:
        errors.append(
            FieldError.forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
        )
    elif extra is not None and schema.get("properties"):
        text = "additionalProperties and properties are mutual exclusive"
        errors.append(FieldError.forbidden(f"{path}.additionalProperties", text))
    if isinstance(schema.get("items"), list):
        errors.append(FieldError.forbidden(f"{path}.items", "items must be a schema object and not an array"))
    if kind == "array" and schema.get("items") is None:
        errors.append(FieldError.required(f"{path}.items", "must be specified"))
    pattern = schema.get("pattern")
    if pattern and compile_pattern(pattern) is None:
        text = f"must be a valid regular expression, but isn't: error parsing regexp: `{pattern}`"
        errors.append(FieldError.invalid(f"{path}.pattern", pattern, text))
    return errors


def _extensions(schema: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    kind = schema.get("type") or ""
    preserve = schema.get("x-kubernetes-preserve-unknown-fields")
    embedded = schema.get("x-kubernetes-embedded-resource")
    if preserve is False:
        at = f"{path}.x-kubernetes-preserve-unknown-fields"
        errors.append(FieldError.invalid(at, False, "must be true or undefined"))
    if schema.get("x-kubernetes-int-or-string") and kind:
        text = "must be empty if x-kubernetes-int-or-string is true"
        errors.append(FieldError.invalid(f"{path}.type", kind, text))
    for flag, name in ((preserve, "preserve-unknown-fields"), (embedded, "embedded-resource")):
        if flag and kind != "object" and (kind or name == "embedded-resource"):
            text = f"must be object if x-kubernetes-{name} is true"
            errors.append(FieldError.invalid(f"{path}.type", kind, text))
    if embedded and not preserve and not schema.get("properties"):
        text = (
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        )
        errors.append(FieldError.required(f"{path}.properties", text))
    map_type = schema.get("x-kubernetes-map-type")
    if map_type is not None:
        if map_type not in ("atomic", "granular"):
            errors.append(unsupported(f"{path}.x-kubernetes-map-type", map_type, ("atomic", "granular")))
        if kind != "object":
            text = "must be object if x-kubernetes-map-type is specified"
            errors.append(
                FieldError.invalid(f"{path}.type", kind, text) if kind else FieldError.required(f"{path}.type", text)
            )
    return errors


def _lists(schema: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    kind, list_type = schema.get("type") or "", schema.get("x-kubernetes-list-type")
    keys: list[str] = list(schema.get("x-kubernetes-list-map-keys") or ())
    if list_type is not None:
        if list_type not in ("atomic", "set", "map"):
            errors.append(unsupported(f"{path}.x-kubernetes-list-type", list_type, ("atomic", "set", "map")))
        if kind != "array":
            text = "must be array if x-kubernetes-list-type is specified"
            errors.append(
                FieldError.invalid(f"{path}.type", kind, text) if kind else FieldError.required(f"{path}.type", text)
            )
    if keys and list_type != "map":
        at, text = f"{path}.x-kubernetes-list-type", "must be map if x-kubernetes-list-map-keys is non-empty"
        errors.append(FieldError.invalid(at, list_type, text) if list_type else FieldError.required(at, text))
    items = schema.get("items")
    if not isinstance(items, dict):
        return errors
    if list_type == "set" and items.get("nullable"):
        text = "cannot be nullable when x-kubernetes-list-type is set"
        errors.append(FieldError.forbidden(f"{path}.items.nullable", text))
    if list_type == "map":
        errors += _map_keys(schema, items, keys, path)
    return errors


def _map_keys(schema: Json, items: Json, keys: list[str], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    at = f"{path}.x-kubernetes-list-map-keys"
    if not keys:
        errors.append(FieldError.required(at, "must not be empty if x-kubernetes-list-type is map"))
    if (kind := items.get("type")) != "object":
        text = "must be object if parent array's x-kubernetes-list-type is map"
        errors.append(FieldError.invalid(f"{path}.items.type", kind or "", text))
    if items.get("nullable"):
        text = "cannot be nullable when x-kubernetes-list-type is map"
        errors.append(FieldError.forbidden(f"{path}.items.nullable", text))
    if len(set(keys)) != len(keys):
        errors.append(FieldError.invalid(at, keys, "must not contain duplicate entries"))
    properties = items.get("properties") or {}
    for key in keys:
        found = properties.get(key)
        if found is None:
            errors.append(FieldError.invalid(at, keys, "entries must all be names of item properties"))
            continue
        where = f"{path}.items.properties[{key}]"
        if found.get("type") not in SCALARS:
            text = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            errors.append(FieldError.invalid(f"{where}.type", found.get("type") or "", text))
        if found.get("nullable"):
            text = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"
            errors.append(FieldError.forbidden(f"{where}.nullable", text))
        if key not in (items.get("required") or ()) and found.get("default") is None:
            text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            errors.append(FieldError.required(f"{where}.default", text))
    return errors


def _default(schema: Json, path: str) -> list[FieldError]:
    default = schema.get("default")
    if default is None:
        return []
    at = f"{path}.default"
    if prune(copy.deepcopy(default), Structural(schema)):
        return [FieldError.invalid(at, default, "must not have unknown fields")]
    try:
        return Validator(schema).validate(default, at)
    except (TypeError, ValueError, AttributeError, KeyError):
        return []  # the schema itself is wrong, which is told elsewhere


def _combinations(schema: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    either = schema.get("x-kubernetes-int-or-string")
    for word in ("allOf", "anyOf", "oneOf"):
        options = schema.get(word) or ()
        if either and word == "anyOf" and list(options) in _INT_OR_STRING:
            continue
        for index, option in enumerate(options):
            usual = either and word == "allOf" and list(option.get("anyOf") or ()) in _INT_OR_STRING
            if not usual:
                errors += _branch(option, schema, f"{path}.{word}[{index}]", path)
    if isinstance(schema.get("not"), dict):
        errors += _branch(schema["not"], schema, f"{path}.not", path)
    return errors


def _branch(branch: Json, around: Json, path: str, outside: str) -> list[FieldError]:
    """A branch of a combination judges; it must not say anything about structure."""
    errors = [
        FieldError.forbidden(f"{path}.{key}", "must be empty to be structural")
        for key in _OUTSIDE
        if branch.get(key) not in (None, "", False)
    ]
    known = around.get("properties") or {}
    for name, child in (branch.get("properties") or {}).items():
        at = f"{path}.properties[{name}]"
        if name not in known and not around.get("x-kubernetes-preserve-unknown-fields"):
            errors.append(FieldError.required(f"{outside}.properties[{name}]", f"because it is defined in {at}"))
        errors += _branch(child, known.get(name) or {}, at, f"{outside}.properties[{name}]")
    if isinstance(items := branch.get("items"), dict):
        inner = around.get("items")
        if not isinstance(inner, dict):
            errors.append(FieldError.required(f"{outside}.items", f"because it is defined in {path}.items"))
        errors += _branch(items, inner if isinstance(inner, dict) else {}, f"{path}.items", f"{outside}.items")
    for word in ("allOf", "anyOf", "oneOf"):
        for index, option in enumerate(branch.get(word) or ()):
            errors += _branch(option, around, f"{path}.{word}[{index}]", outside)
    if isinstance(branch.get("not"), dict):
        errors += _branch(branch["not"], around, f"{path}.not", outside)
    return errors


def _rule(rule: Json, path: str, schema_path: str, *, correlated: bool) -> list[FieldError]:
    from apiserver.crd.rules import compiled, is_about_change
    from apiserver.expressions.compiling import ExpressionError, compile_expression

    text = str(rule.get("rule") or "")
    if not text.strip():
        return [FieldError.required(f"{path}.rule", "rule is not specified")]
    errors: list[FieldError] = []
    shown = {
        "Rule": text,
        "Message": rule.get("message") or "",
        "MessageExpression": rule.get("messageExpression") or "",
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath") or "",
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }
    message = rule.get("message")
    if message and not message.strip():
        errors.append(FieldError.invalid(f"{path}.message", message, "message must be non-empty if specified"))
    elif message and "\n" in message.strip():
        errors.append(FieldError.invalid(f"{path}.message", message, "message must not contain line breaks"))
    elif "\n" in text.strip() and not message:
        required = "message must be specified if rule contains line breaks"
        errors.append(FieldError.required(f"{path}.message", required))
    reason = rule.get("reason")
    if reason is not None and reason not in REASONS:
        errors.append(unsupported(f"{path}.reason", reason, REASONS))
    if is_about_change(text) and not correlated:
        why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {schema_path}"
        errors.append(FieldError.invalid(f"{path}.rule", text, why))
    try:
        compiled(rule)
    except ExpressionError as error:
        errors.append(FieldError.invalid(f"{path}.rule", shown, f"compilation failed: {error}"))
    if expression := rule.get("messageExpression"):
        names = ("self", "oldSelf") if is_about_change(text) else ("self",)
        try:
            compile_expression(str(expression), names, "string")
        except ExpressionError as error:
            why = f"messageExpression compilation failed: {error}"
            errors.append(FieldError.invalid(f"{path}.messageExpression", shown, why))
    return errors
