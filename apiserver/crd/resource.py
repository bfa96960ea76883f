"""A version of a definition as a resource: names, schema, columns, and what it makes of request bodies.

Owns the reading of a CustomResourceDefinition into `CustomResource`s. They are values: another generation of the
definition makes new ones. Called by `crd.serving`; doors and patches ask a resource to accept bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from api.resources import STATUS_VERBS, Resource, Subresource
from api.schema import SchemaNode, from_openapi
from apiserver import fieldvalidation
from apiserver.crd.structural import NOTHING, Structural, drop_nulls, embedded_objects, prune
from apiserver.crd.validation import Validator, has_rules
from apiserver.discovery import version_rank
from machinery.errors import BadRequest, Invalid
from machinery.field_errors import FieldError, invalid

if TYPE_CHECKING:
    from apiserver.crd.rules import Rules
    from apiserver.tables.registry import TableRenderer

Obj = dict[str, Any]

VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_METADATA = {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
_NAMES = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": _METADATA}


@dataclass(frozen=True, eq=False)
class CustomResource(Resource):
    """A served version. `definition` is the name of the CustomResourceDefinition."""

    definition: str = field(default="", compare=False)
    generation: int = field(default=0, compare=False)
    list_kind_name: str = field(default="", compare=False)
    spec: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)
    """The entry of `spec.versions` without its schema."""
    schema: bytes = field(default=b"", compare=False)
    """The OpenAPI schema as JSON: decoded it takes ten times as much, and only some of it is ever needed."""
    deprecation: str = field(default="", compare=False)
    """The Warning that every answer of this version carries."""

    stored_version: str = field(default="", compare=False)
    """The version with `storage: true`; empty where it is not served."""

    @property
    def storage_version(self) -> tuple[str, str] | None:
        return (self.group, self.stored_version) if self.stored_version else None

    @property
    def list_kind(self) -> str:
        return self.list_kind_name or super().list_kind

    @property
    def raw_schema(self) -> Mapping[str, Any]:
        """The OpenAPI schema as the definition has it; decoded at every call."""
        found: Mapping[str, Any] = msgspec.json.decode(self.schema)
        return found

    @cached_property
    def structural(self) -> Structural:
        return Structural(self.raw_schema, root=True)

    @cached_property
    def validator(self) -> Validator:
        return Validator(self.raw_schema)

    @cached_property
    def status_validator(self) -> Validator:
        """Of `status` alone: texts of status writes name paths inside of it."""
        return Validator((self.raw_schema.get("properties") or {}).get("status") or {})

    @cached_property
    def has_rules(self) -> bool:
        return has_rules(self.raw_schema)

    @cached_property
    def rules(self) -> Rules | None:
        """The schema's expressions; None, and nothing imported for them, where there are none."""
        if not self.has_rules:
            return None
        from apiserver.crd.rules import Rules

        return Rules(self.raw_schema, root=True)

    @cached_property
    def status_rules(self) -> Rules | None:
        """Those of `status` alone."""
        status = (self.raw_schema.get("properties") or {}).get("status") or {}
        if not has_rules(status):
            return None
        from apiserver.crd.rules import Rules

        return Rules(status)

    @cached_property
    def node(self) -> SchemaNode:
        """The schema for whoever merges by it: apiVersion, kind and metadata are those of every object."""
        raw = self.raw_schema
        return from_openapi({**raw, "type": "object", "properties": {**(raw.get("properties") or {}), **_NAMES}})

    @cached_property
    def scale(self) -> Mapping[str, str]:
        """`subresources.scale`: the paths of counts and selector."""
        found: Mapping[str, str] = (self.spec.get("subresources") or {}).get("scale") or {}
        return found

    @cached_property
    def table(self) -> TableRenderer:
        from apiserver.tables import custom_table

        return custom_table(self.spec.get("additionalPrinterColumns") or ())

    # -- bodies -------------------------------------------------------------------------------------------------------

    def check_kind(self, body: Obj) -> None:
        """Raises BadRequest or Invalid for an object of another kind or version."""
        version, kind = body.get("apiVersion"), body.get("kind")
        for name, value in (("Kind", kind), ("apiVersion", version)):
            if not isinstance(value, str) or not value:
                shown = msgspec.json.encode(body).decode()
                why = f"Object '{name}' is missing in '{shown}'"
                text = shown if len(shown) <= 30 else f"{shown[:30]} ..."
                raise BadRequest(f"the object provided is unrecognized (must be of type {self.kind}): {why} ({text})")
        if version != self.group_version:
            raise BadRequest(
                f"the API version in the data ({version}) does not match the expected API version "
                f"({self.group_version})"
            )
        if kind != self.kind:
            meta = body.get("metadata")
            named = str(meta.get("name") or "") if isinstance(meta, dict) else ""
            raise invalid(str(kind), named, self.group, [FieldError.invalid("kind", kind, f"must be {self.kind}")])

    def accept(self, body: Obj, raw: bytes | None, directive: str, warnings: list[str]) -> Obj:
        """A request body without what the schema does not know. Raises BadRequest and Invalid."""
        problems = self._problems(body, raw)
        if problems:
            if directive == fieldvalidation.STRICT:
                found = ", ".join(problems)
                raise BadRequest(f"{self._cannot_be_handled(body)}: strict decoding error: {found}")
            if directive != fieldvalidation.IGNORE:
                warnings.extend(problems)
        self.check_kind(body)
        return body

    def accept_patched(self, obj: Obj, directive: str, warnings: list[str]) -> Obj:
        """The result of a patch without what the schema does not know. Raises Invalid."""
        problems = self._problems(obj, None)
        if problems:
            if directive == fieldvalidation.STRICT:
                shown = msgspec.json.encode(dict(sorted(obj.items()))).decode()
                quoted = msgspec.json.encode(shown).decode()
                text = f"Invalid value: {quoted}: strict decoding error: {', '.join(problems)}"
                cause = {"reason": "FieldValueInvalid", "message": text, "field": "patch"}
                raise Invalid(f' "" is invalid: patch: {text}', details={"causes": [cause]})
            if directive != fieldvalidation.IGNORE:
                warnings.extend(problems)
        return obj

    def _cannot_be_handled(self, body: Obj) -> str:
        version = str(body.get("apiVersion") or self.version).rpartition("/")[2]
        return f'{body.get("kind") or self.kind} in version "{version}" cannot be handled as a {self.kind}'

    def _problems(self, body: Obj, raw: bytes | None) -> list[str]:
        """Prune in place; one text per unknown or repeated field."""
        problems = fieldvalidation.repeated(raw, body) if raw is not None else []
        known = body.get("apiVersion") in (None, "", self.group_version)
        schema = self.structural if known else NOTHING
        problems += [f'unknown field "{path}"' for path in prune(body, schema)]
        for path, owner in [("", body), *embedded_objects(body, schema)]:
            problems += self._metadata_problems(owner, f"{path}.metadata" if path else "metadata", body)
        drop_nulls(body, schema)
        return problems

    def _metadata_problems(self, owner: Obj, path: str, body: Obj) -> list[str]:
        meta = owner.get("metadata")
        if meta is None:
            return []
        try:
            checked = fieldvalidation.check({"metadata": meta}, None, _metadata_node())
        except fieldvalidation.TypeMismatch as error:
            raise BadRequest(f"{self._cannot_be_handled(body)}: {error}") from error
        owner["metadata"] = checked.obj["metadata"]
        return [text.replace('"metadata', f'"{path}', 1) for text in checked.problems]


_nodes: list[SchemaNode] = []


def _metadata_node() -> SchemaNode:
    """Built once, with the first custom object that is written."""
    if not _nodes:
        _nodes.append(from_openapi({"type": "object", "properties": {"metadata": _METADATA}}))
    return _nodes[0]


def resources_of(definition: Obj) -> list[CustomResource]:
    """All versions of a definition under its accepted names, best first; served ones have verbs."""
    spec, meta = definition["spec"], definition["metadata"]
    names: Obj = {**spec["names"], **((definition.get("status") or {}).get("acceptedNames") or {})}
    versions = sorted(spec.get("versions") or (), key=lambda version: version_rank(version["name"]))
    current = next((v["name"] for v in versions if v.get("served") and not v.get("deprecated")), "")
    stored = next((v["name"] for v in versions if v.get("served") and v.get("storage")), "")
    found = []
    for version in versions:
        subresources: dict[str, Subresource] = {}
        offered = version.get("subresources") or {}
        if offered.get("status") is not None:
            subresources["status"] = Subresource(names["kind"])
        if offered.get("scale") is not None:
            subresources["scale"] = Subresource("Scale", STATUS_VERBS, "autoscaling", "v1")
        found.append(
            CustomResource(
                group=spec["group"],
                version=version["name"],
                plural=names["plural"],
                kind=names["kind"],
                namespaced=spec["scope"] == "Namespaced",
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                verbs=VERBS,
                subresources=subresources,
                singular_name=names.get("singular") or "",
                definition=meta["name"],
                generation=meta.get("generation") or 0,
                list_kind_name=names.get("listKind") or "",
                spec={key: value for key, value in version.items() if key != "schema"},
                schema=msgspec.json.encode((version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}),
                deprecation=_deprecation(spec["group"], names["kind"], version, current),
                stored_version=stored,
            )
        )
    return found


def _deprecation(group: str, kind: str, version: Obj, current: str) -> str:
    if not version.get("deprecated"):
        return ""
    if (text := version.get("deprecationWarning")) is not None:
        return str(text)
    told = f"{group}/{version['name']} {kind} is deprecated"
    better = current if current and version_rank(current) < version_rank(version["name"]) else ""
    return f"{told}; use {group}/{better} {kind}" if better else told
