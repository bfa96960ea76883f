"""Does the resource take this verb, and does the body hold the kind its path expects?

Owns: the rules of paths and of bodies' kinds. Called by both doors before the registry sees a request.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from api.resources import Resource, by_kind
from api.schema import SchemaNode, for_kind
from apiserver.auth.attributes import Attributes
from apiserver.crd.resource import CustomResource
from apiserver.fieldvalidation import accept_body
from apiserver.registry.context import RequestContext
from machinery.errors import BadRequest, MethodNotAllowed, NotFound

_SCHEME = "pkg/api/legacyscheme/scheme.go:30"


def check_route(info: Attributes, resource: Resource) -> None:
    """Does this path exist, and does it take this method? Raises NotFound or MethodNotAllowed."""
    if resource.namespaced:
        if info.name and not info.namespace:
            raise NotFound.path()
        across = not info.namespace
    else:
        if info.namespace and info.resource != "namespaces":
            raise NotFound.path()
        across = False
    verb = info.verb
    if info.subresource:
        subresource = resource.subresources.get(info.subresource)
        if subresource is None:
            if isinstance(resource, CustomResource):
                raise NotFound.of(resource.plural, info.name, resource.group)
            raise NotFound.path()
        # Methods without a verb (OPTIONS) are for proxies to pass on.
        if verb not in subresource.verbs and (verb or info.subresource != "proxy"):
            raise MethodNotAllowed
        return
    if verb not in resource.verbs:
        raise MethodNotAllowed
    if verb == "create" and (info.name or (across and resource.plural != "localsubjectaccessreviews")):
        raise MethodNotAllowed
    if verb in ("update", "patch") and not info.name:
        raise MethodNotAllowed
    if verb == "deletecollection" and across:
        raise MethodNotAllowed


def expected(resource: Resource, subresource: str = "") -> tuple[str, str]:
    """(apiVersion, kind) of bodies at a path."""
    if not subresource:
        return resource.group_version, resource.kind
    found = resource.subresources[subresource]
    if not found.version:
        return resource.group_version, found.kind
    return (f"{found.group}/{found.version}" if found.group else found.version), found.kind


@cache
def _schema(resource: Resource, subresource: str) -> SchemaNode | None:
    api_version, kind = expected(resource, subresource)
    group, _, version = api_version.rpartition("/")
    return for_kind(group, version, kind)


def check_fields(
    body: dict[str, Any], raw: bytes | None, resource: Resource, subresource: str, context: RequestContext
) -> dict[str, Any]:
    """The body without fields nobody knows. Raises BadRequest on wrong types, and as fieldValidation asks."""
    if isinstance(resource, CustomResource) and subresource != "scale":
        return resource.accept(body, raw, context.field_validation, context.warnings)
    node = _schema(resource, subresource)
    directive, kind = context.field_validation, expected(resource, subresource)[1]
    return accept_body(body, raw, node, kind=kind, directive=directive, warnings=context.warnings)


def check_kind(body: dict[str, Any], resource: Resource, subresource: str = "") -> None:
    """Fill in a missing apiVersion and kind; raise BadRequest on others than expected."""
    if isinstance(resource, CustomResource) and subresource != "scale":
        return  # told by `check_fields`: what the schema does not know is told as well
    api_version, kind = expected(resource, subresource)
    given_version, given_kind = body.get("apiVersion") or api_version, body.get("kind") or kind
    if given_version == api_version and given_kind == kind:
        if "kind" not in body or "apiVersion" not in body:
            body["apiVersion"], body["kind"] = api_version, kind
        return
    if (given_version, given_kind, api_version) == ("policy/v1beta1", "Eviction", "policy/v1"):
        body["apiVersion"] = api_version  # older clients evict with the version that went with the budgets'
        return
    group, _, version = given_version.rpartition("/")
    refused = f'{given_kind} in version "{version}" cannot be handled as a {kind}'
    if by_kind(group, version, given_kind) is None:
        why = f'no kind "{given_kind}" is registered for version "{given_version}" in scheme "{_SCHEME}"'
        raise BadRequest(f"{refused}: {why}")
    if given_kind == kind:
        raise BadRequest(
            f"the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )
    internal = internal_kind(resource) if kind == resource.kind else _internal(api_version, kind)
    raise BadRequest(f"{refused}: converting ({version}.{given_kind}) to ({internal}): unknown conversion")


def internal_kind(resource: Resource) -> str:
    """What upstream calls the kind inside, as messages show it."""
    return _internal(resource.group_version, resource.kind)


def _internal(api_version: str, kind: str) -> str:
    return f"{api_version.rpartition('/')[0].partition('.')[0] or 'core'}.{kind}"
