"""The `serviceaccounts/token` subresource: a token for a service account.

Owns: the rules of TokenRequest. Never signs by itself (`service_accounts.py`). Called through `virtual.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from apiserver.auth.service_accounts import (
    DEFAULT_EXPIRATION,
    MAX_EXPIRATION,
    MIN_EXPIRATION,
    PRIVATE_CLAIM,
    Bound,
    MetadataReader,
    ServiceAccountTokens,
    plan_claims,
)
from apiserver.registry.context import RequestContext
from machinery.clock import Clock
from machinery.errors import BadRequest, Conflict, NotFound
from machinery.field_errors import FieldError, invalid
from machinery.meta import rfc3339

GROUP = "authentication.k8s.io"
PROJECTED_SECONDS = 3607
EXTENDED_SECONDS = 365 * 24 * 3600
_BINDABLE = {("v1", "Pod"): "pods", ("v1", "Secret"): "secrets", ("v1", "Node"): "nodes"}


class TokenRequests:
    """Makes tokens. `read` gives an object's metadata (and, for pods, `spec.nodeName` under that key)."""

    def __init__(self, clock: Clock, accounts: ServiceAccountTokens, read: MetadataReader) -> None:
        self._clock = clock
        self._accounts = accounts
        self._read = read

    async def create(self, ctx: RequestContext, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """A TokenRequest with its status filled in. Raises NotFound, Invalid, Conflict."""
        meta = body.get("metadata") or {}
        if (given := meta.get("namespace")) and given != namespace:
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        if (given := meta.get("name")) and given != name:
            why = "must match the service account name if specified"
            raise invalid("TokenRequest", name, GROUP, [FieldError.invalid("metadata.name", given, why)])
        account = await self._read("serviceaccounts", namespace, name)
        if account is None:
            raise NotFound.of("serviceaccounts", name)
        if (uid := meta.get("uid")) and uid != account["uid"]:
            why = (
                f"the UID in the token request ({uid}) does not match the UID of the service account ({account['uid']})"
            )
            raise Conflict.of("TokenRequest", name, GROUP, why)
        spec = body.get("spec") or {}
        seconds = spec.get("expirationSeconds")
        seconds = DEFAULT_EXPIRATION if seconds is None else seconds
        findings = check_spec(spec, seconds)
        if findings:
            raise invalid("TokenRequest", "", GROUP, findings)
        audiences = list(spec.get("audiences") or [self._accounts.issuer])
        bound, node = await self._bound(namespace, name, spec.get("boundObjectRef"))
        issued = self._clock.now()
        # Upstream's rule for the tokens of its own projected volumes: clients that never read the file again work on
        # for a year, and the claim `warnafter` says when they should have.
        extended = (
            seconds == PROJECTED_SECONDS
            and bound is not None
            and bound.kind == "Pod"
            and (audiences == [self._accounts.issuer])
        )
        claims = plan_claims(
            issuer=self._accounts.issuer,
            namespace=namespace,
            name=name,
            uid=account["uid"],
            audiences=audiences,
            issued=issued.timestamp(),
            seconds=EXTENDED_SECONDS if extended else seconds,
            token_id=str(uuid.uuid4()),
            bound=bound,
            node=node,
        )
        if extended:
            claims[PRIVATE_CLAIM]["warnafter"] = claims["iat"] + seconds
        meta = {"name": name, "namespace": namespace, "uid": account["uid"], "creationTimestamp": rfc3339(issued)}
        ends = rfc3339(issued.fromtimestamp(claims["iat"] + seconds, issued.tzinfo))
        return {
            "kind": "TokenRequest",
            "apiVersion": f"{GROUP}/v1",
            "metadata": meta,
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": spec.get("boundObjectRef"),
            },
            "status": {"token": self._accounts.key.sign(claims), "expirationTimestamp": ends},
        }

    async def _bound(
        self, namespace: str, account: str, reference: Mapping[str, Any] | None
    ) -> tuple[Bound | None, Bound | None]:
        """The object a token is bound to and, for a pod, the node that runs it."""
        if not reference:
            return None, None
        kind, name, uid = (str(reference.get(key) or "") for key in ("kind", "name", "uid"))
        plural = _BINDABLE.get((reference.get("apiVersion") or "v1", kind))
        if plural is None:
            group, _, version = str(reference.get("apiVersion") or "v1").rpartition("/")
            raise BadRequest(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
        meta = await self._read(plural, "" if plural == "nodes" else namespace, name)
        if meta is None:
            raise NotFound.of(plural, name)
        if uid and uid != meta["uid"]:
            why = (
                f"the UID in the bound object reference ({uid}) does not match the UID in record ({meta['uid']}). "
                "The object might have been deleted and then recreated"
            )
            raise Conflict.of(kind, name, "", why)
        node = None
        if kind == "Pod":
            if (other := meta.get("serviceAccountName") or "") != account:
                told = f'cannot bind token for serviceaccount "{account}" to pod running with serviceaccount "{other}"'
                raise BadRequest(told)
            node_name = str(meta.get("nodeName") or "")
            found = await self._read("nodes", "", node_name) if node_name else None
            if found is not None:
                node = Bound("Node", node_name, found["uid"])
        return Bound(kind, name, meta["uid"]), node


def check_spec(spec: Mapping[str, Any], seconds: Any) -> list[FieldError]:
    """The rules of a TokenRequest's spec."""
    found: list[FieldError] = []
    path = "spec.expirationSeconds"
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        return [FieldError.invalid(path, seconds, "must be an integer")]
    if seconds < MIN_EXPIRATION:
        found.append(FieldError.invalid(path, seconds, "may not specify a duration less than 10 minutes"))
    if seconds > MAX_EXPIRATION:
        found.append(FieldError.invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
    return found
