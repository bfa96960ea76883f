"""Approves the requests of kubelets for their own client certificates, if the one who asks may have that done.

Owns no rule of its own: who may is asked of the API server (SubjectAccessReview on the subresources `nodeclient` and
`selfnodeclient`). Everything else waits for a person.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata; the models call it optional.

from __future__ import annotations

from typing import Any

import msgspec

from api.models import authorization_v1, certificates_v1
from client.client import Client, PatchType
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.certificates import requests
from controller_manager.environment import Environment
from machinery.clock import Clock
from machinery.meta import ObjectKey, rfc3339

GROUP = "certificates.k8s.io"


def plan_reviews(request: certificates_v1.CertificateSigningRequest, wish: requests.Wish) -> list[tuple[str, str]]:
    """(subresource to ask for, message of the approval), in upstream's order; empty when it is no kubelet's."""
    if request.spec.signerName != requests.KUBELET_CLIENT:
        return []
    try:
        requests.check_kubelet_client(wish)
    except requests.BadRequest:
        return []
    found = [("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")]
    if request.spec.username == wish.common_name:
        found.insert(0, ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."))
    return found


class CertificateApprover:
    """Reads requests, asks for reviews, writes approvals."""

    def __init__(self, env: Environment) -> None:
        self._client: Client = env.client
        self._clock: Clock = env.clock
        self._requests: Informer[certificates_v1.CertificateSigningRequest] = env.informers.informer(
            certificates_v1.CertificateSigningRequest
        )
        self.controller = Controller(
            "csrapproving", self.reconcile, clock=env.clock, informers=[self._requests], workers=2
        )
        self.controller.watches(self._requests)

    async def reconcile(self, key: ObjectKey) -> Result:
        request = self._requests.lister.get(key)
        if request is None or request.metadata.deletionTimestamp is not None:
            return DONE
        if (request.status and request.status.certificate) or any(
            requests.has(request, kind) for kind in ("Approved", "Denied", "Failed")
        ):
            return DONE
        if request.spec.signerName != requests.KUBELET_CLIENT:
            return DONE
        try:
            wish = requests.parse(request)
        except requests.BadRequest:
            return DONE  # the signer will say what is wrong with it, should somebody approve it
        for subresource, message in plan_reviews(request, wish):
            if await self._may(request, subresource):
                await self._approve(request, message)
                break
        return DONE

    async def _may(self, request: certificates_v1.CertificateSigningRequest, subresource: str) -> bool:
        spec = request.spec
        review = authorization_v1.SubjectAccessReview(
            spec=authorization_v1.SubjectAccessReviewSpec(
                user=spec.username,
                uid=spec.uid,
                groups=spec.groups,
                extra=spec.extra,
                resourceAttributes=authorization_v1.ResourceAttributes(
                    group=GROUP,
                    resource="certificatesigningrequests",
                    verb="create",
                    subresource=subresource,
                    version="*",
                ),
            )
        )
        answer = await self._client.create(review)
        return answer.status is not None and answer.status.allowed

    async def _approve(self, request: certificates_v1.CertificateSigningRequest, message: str) -> None:
        condition: dict[str, Any] = {
            "type": "Approved",
            "status": "True",
            "reason": "AutoApproved",
            "message": message,
            "lastUpdateTime": rfc3339(self._clock.now()),
        }
        known = msgspec.to_builtins((request.status.conditions if request.status else None) or [])
        await self._client.patch(
            certificates_v1.CertificateSigningRequest,
            request.metadata.name or "",
            {"status": {"conditions": [*known, condition]}},
            type=PatchType.MERGE,
            resource_version=request.metadata.resourceVersion,
            subresource="approval",
        )


def build(env: Environment) -> list[Controller]:
    return [CertificateApprover(env).controller]
