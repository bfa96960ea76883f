"""Resources that are only asked, never stored: access reviews, token reviews, and tokens of service accounts.

Owns: which create requests are answered here instead of by the registry, and their answers. Called by both doors after
authentication and authorization.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from api.resources import Resource
from apiserver.apply.fieldset import MEMBER
from apiserver.apply.ownership import Kind, plan_create_json
from apiserver.apply.shapes import root_shape
from apiserver.auth.attributes import Attributes
from apiserver.auth.gate import Gate
from apiserver.auth.rbac import RBACAuthorizer
from apiserver.auth.service_accounts import DEFAULT_EXPIRATION, ServiceAccountTokens, user_of
from apiserver.auth.token_request import TokenRequests
from apiserver.auth.user import UserInfo
from apiserver.registry.context import RequestContext
from apiserver.registry.validation.fields import unsupported
from machinery.clock import Clock
from machinery.errors import BadRequest, NotFound, Unauthorized
from machinery.field_errors import FieldError, invalid
from machinery.jwt import BadToken
from machinery.meta import rfc3339

AUTHENTICATION = "authentication.k8s.io"
AUTHORIZATION = "authorization.k8s.io"

Obj = dict[str, Any]
_encode = msgspec.json.Encoder().encode
Admit = Callable[[RequestContext, Resource, str, str, Obj, str], Awaitable[None]]
_Create = Callable[[RequestContext, str, str, Obj], Awaitable[Obj]]


class VirtualResources:
    """Answers the create-only resources."""

    def __init__(
        self,
        clock: Clock,
        gate: Gate,
        rbac: RBACAuthorizer,
        agnostic_token: Callable[[str], Awaitable[UserInfo | None]],
        accounts: ServiceAccountTokens | None,
        tokens: TokenRequests | None,
        admit: Admit,
    ) -> None:
        """`admit` asks admission about what is posted."""
        self._admit = admit
        self._clock = clock
        self._gate = gate
        self._rbac = rbac
        self._agnostic_token = agnostic_token
        self._accounts = accounts
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._handlers: dict[tuple[str, str, str], _Create] = {
            (AUTHORIZATION, "selfsubjectaccessreviews", ""): self._self_access,
            (AUTHORIZATION, "subjectaccessreviews", ""): self._access,
            (AUTHORIZATION, "localsubjectaccessreviews", ""): self._local_access,
            (AUTHORIZATION, "selfsubjectrulesreviews", ""): self._rules,
            (AUTHENTICATION, "selfsubjectreviews", ""): self._self,
            (AUTHENTICATION, "tokenreviews", ""): self._token,
        }
        if tokens is not None:
            self._handlers[("", "serviceaccounts", "token")] = tokens.create

    def serves(self, resource: Resource, subresource: str) -> bool:
        return (resource.group, resource.plural, subresource) in self._handlers

    async def create(
        self, ctx: RequestContext, resource: Resource, namespace: str, name: str, subresource: str, body: Obj
    ) -> bytes:
        """The answer to a create request. Raises StatusError."""
        handler = self._handlers.get((resource.group, resource.plural, subresource))
        if handler is None:
            raise NotFound.path()
        for key in ("metadata", "spec"):
            if not isinstance(body.get(key) or {}, dict):
                raise BadRequest(f"json: cannot unmarshal into Go struct field {resource.kind}.{key}")
        if subresource:
            spec = {"expirationSeconds": DEFAULT_EXPIRATION, **(body.get("spec") or {})}
            body = {**body, "metadata": body.get("metadata") or {}, "spec": spec}
        await self._admit(ctx, resource, namespace, name, body, subresource)
        try:
            owned = self._owned(ctx, resource, subresource, body)
            answer = await handler(ctx, namespace, name, body)
            if owned is not None:
                answer = {**answer, "metadata": {**(answer.get("metadata") or {}), "managedFields": owned}}
            return _encode(answer)
        except (TypeError, AttributeError, ValueError) as exc:
            # Only the shape of the body can be wrong here; the values were checked by name above.
            raise BadRequest(f"{resource.kind} in version {resource.version!r} cannot be handled: {exc}") from exc

    def _owned(self, ctx: RequestContext, resource: Resource, subresource: str, body: Obj) -> msgspec.Raw | None:
        """managedFields of the answer; nobody needs them here, but upstream tells them."""
        if resource.plural == "selfsubjectrulesreviews":
            return None
        found = self._kinds.get((resource.plural, subresource))
        if found is None:
            group, version, kind = resource.group, resource.version, resource.kind
            if subresource:
                group, version, kind = AUTHENTICATION, "v1", "TokenRequest"
            shape, ignored = root_shape(group, version, kind), {"f:status": MEMBER}
            found = self._kinds[resource.plural, subresource] = Kind(f"{group}/{version}", shape, subresource, ignored)
        return plan_create_json(found, body, ctx.field_manager or "unknown", rfc3339(self._clock.now()))

    # authorization.k8s.io

    async def _self_access(self, ctx: RequestContext, namespace: str, name: str, body: Obj) -> Obj:
        spec = body.get("spec") or {}
        self._check_attributes(spec)
        return self._answer(body, self._decide(ctx.user, spec))

    async def _access(self, ctx: RequestContext, namespace: str, name: str, body: Obj) -> Obj:
        spec = body.get("spec") or {}
        self._check_attributes(spec)
        return self._answer(body, self._decide(_subject(spec), spec))

    async def _local_access(self, ctx: RequestContext, namespace: str, name: str, body: Obj) -> Obj:
        spec = body.get("spec") or {}
        self._check_attributes(spec)
        subject = _subject(spec)
        asked = (spec.get("resourceAttributes") or {}).get("namespace", "")
        if asked != namespace:
            detail = FieldError.invalid("spec.resourceAttributes.namespace", asked, "must match metadata.namespace")
            raise invalid("", "", AUTHORIZATION, [detail])
        meta = body.get("metadata") or {}
        return self._answer({**body, "metadata": {**meta, "namespace": namespace}}, self._decide(subject, spec))

    @staticmethod
    def _check_attributes(spec: Mapping[str, Any]) -> None:
        if bool(spec.get("resourceAttributes")) == bool(spec.get("nonResourceAttributes")):
            why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            detail = FieldError.invalid("spec.resourceAttributes", None, why)
            raise invalid("", "", AUTHORIZATION, [detail])
        found: list[FieldError] = []
        for field in ("fieldSelector", "labelSelector"):
            selector = (spec.get("resourceAttributes") or {}).get(field)
            if selector is not None:
                found += _check_selector(selector, f"spec.resourceAttributes.{field}")
        if found:
            raise invalid("", "", AUTHORIZATION, found)

    def _decide(self, user: UserInfo, spec: Mapping[str, Any]) -> Obj:
        resource = spec.get("resourceAttributes")
        if resource:
            asked = Attributes(
                verb=resource.get("verb", ""),
                is_resource=True,
                group=resource.get("group", ""),
                version=resource.get("version", ""),
                resource=resource.get("resource", ""),
                namespace=resource.get("namespace", ""),
                name=resource.get("name", ""),
                subresource=resource.get("subresource", ""),
                field_selector=_selector_text(resource.get("fieldSelector") or {}),
            )
        else:
            path = spec["nonResourceAttributes"]
            asked = Attributes(path=path.get("path", ""), verb=path.get("verb", ""))
        decision = self._gate.decide(user, asked)
        status: Obj = {"allowed": decision.allowed}
        if decision.reason:
            status["reason"] = decision.reason
        return status

    @staticmethod
    def _answer(body: Obj, status: Obj) -> Obj:
        return {
            "kind": body["kind"],
            "apiVersion": body["apiVersion"],
            "metadata": body.get("metadata") or {},
            "spec": body.get("spec") or {},
            "status": status,
        }

    async def _rules(self, ctx: RequestContext, namespace: str, name: str, body: Obj) -> Obj:
        wanted = (body.get("spec") or {}).get("namespace", "")
        if not wanted:
            raise BadRequest("no namespace on request")
        resources: list[Obj] = []
        paths: list[Obj] = []
        for rule, binding in self._rbac.grants(ctx.user, wanted):
            verbs = list(rule.source.get("verbs") or ())
            if rule.resources:
                keys = ("apiGroups", "resources", "resourceNames")
                found = {key: list(rule.source[key]) for key in keys if rule.source.get(key)}
                resources.append({"verbs": verbs, **found})
            if rule.paths and not binding.namespace:
                paths.append({"verbs": verbs, "nonResourceURLs": list(rule.paths)})
        status = {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}
        return {"kind": body["kind"], "apiVersion": body["apiVersion"], "metadata": {}, "spec": {}, "status": status}

    # authentication.k8s.io

    async def _self(self, ctx: RequestContext, namespace: str, name: str, body: Obj) -> Obj:
        return {
            "kind": body["kind"],
            "apiVersion": body["apiVersion"],
            "metadata": {"creationTimestamp": rfc3339(self._clock.now())},
            "status": {"userInfo": ctx.user.to_dict()},
        }

    async def _token(self, ctx: RequestContext, namespace: str, name: str, body: Obj) -> Obj:
        spec = body.get("spec") or {}
        token, audiences = spec.get("token", ""), spec.get("audiences") or []
        if not token:
            raise BadRequest("token is required for TokenReview in authentication")
        return {**self._answer(body, await self._review(token, audiences)), "metadata": body.get("metadata") or {}}

    async def _review(self, token: str, audiences: list[str]) -> Obj:
        refused: Obj = {"user": {}, "error": "invalid bearer token"}
        ours = [self._accounts.issuer] if self._accounts is not None else []
        try:
            agnostic = await self._agnostic_token(token)
        except Unauthorized:
            return refused
        if agnostic is not None:  # such a token is for whatever this server is
            meant = [audience for audience in audiences if audience in ours] if audiences else ours
            if audiences and not meant:
                return {"user": {}}
            told: Obj = {"authenticated": True, "user": agnostic.to_dict()}
            return {**told, "audiences": meant} if meant else told
        if self._accounts is None:
            return refused
        try:
            claims = await self._accounts.claims(token)
        except (BadToken, Unauthorized):
            return refused
        wanted = audiences or [self._accounts.issuer]
        shared = [audience for audience in claims["aud"] if audience in wanted]
        if not shared:
            shown = (_quoted(claims["aud"]), _quoted(wanted))
            why = f"token audiences {shown[0]} is invalid for the target audiences {shown[1]}"
            return {"user": {}, "error": f"[invalid bearer token, {why}]"}
        return {"authenticated": True, "user": user_of(claims).to_dict(), "audiences": shared}


def _quoted(values: list[str]) -> str:
    return "[" + " ".join(f'"{value}"' for value in values) + "]"


_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def _check_selector(selector: Mapping[str, Any], path: str) -> list[FieldError]:
    """A selector is either raw text or a list of requirements."""
    raw, requirements = selector.get("rawSelector") or "", selector.get("requirements") or []
    if raw and requirements:
        detail = "may not specified at the same time as requirements"
        return [FieldError.invalid(f"{path}.rawSelector", raw, detail)]
    if not raw and not requirements:
        detail = f"when {path} is specified, requirements or rawSelector is required"
        return [FieldError.required(f"{path}.requirements", detail)]
    found = []
    for index, requirement in enumerate(requirements):
        at, operator = f"{path}.requirements[{index}]", requirement.get("operator") or ""
        values = requirement.get("values") or []
        if not requirement.get("key"):
            found.append(FieldError.required(f"{at}.key", "must be specified"))
        if operator in ("In", "NotIn"):
            if not values:
                detail = "must be specified when `operator` is 'In' or 'NotIn'"
                found.append(FieldError.required(f"{at}.values", detail))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                found.append(FieldError.forbidden(f"{at}.values", detail))
        else:
            found.append(unsupported(f"{at}.operator", operator, _OPERATORS))
    return found


def _selector_text(selector: Mapping[str, Any]) -> str:
    """A field selector as the text that authorizers read: what it pins fields to."""
    if selector.get("rawSelector"):
        return str(selector["rawSelector"])
    pinned = [
        f"{each['key']}={each['values'][0]}"
        for each in selector.get("requirements") or ()
        if each.get("operator") == "In" and len(each.get("values") or ()) == 1
    ]
    return ",".join(pinned)


def _subject(spec: Mapping[str, Any]) -> UserInfo:
    user, groups = spec.get("user", ""), tuple(spec.get("groups") or ())
    if not user and not groups:
        why = "at least one of user or group must be specified"
        raise invalid("", "", AUTHORIZATION, [FieldError.invalid("spec.user", "", why)])
    return UserInfo(user, groups, spec.get("uid", ""))
