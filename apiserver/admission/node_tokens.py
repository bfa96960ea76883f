"""NodeRestriction's rules for tokens: a kubelet gets them bound to a pod that it runs, for an audience of that pod.

Without it a kubelet could get a token of any account of its pods that outlives the pod, or for a system outside of the
cluster that the pod never talks to. Called by `node_restriction`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apiserver.admission.policies.expressions import Authorize
from apiserver.auth.attributes import Attributes
from apiserver.auth.user import UserInfo
from apiserver.registry.hooks import Obj
from apiserver.registry.store import Registry
from machinery.errors import NotFound

AUDIENCE_VERB = "request-serviceaccounts-token-audience"


class NodeTokens:
    """Reads pods, and the drivers of their volumes, from the caches. `authorize` is None where rights do not exist."""

    def __init__(self, registry: Registry, authorize: Authorize | None) -> None:
        self._registry = registry
        self._authorize = authorize

    async def refusal(self, user: UserInfo, namespace: str, account: str, request: Obj) -> str:
        """Why the request is refused, or "". Raises NotFound for a pod that is not there."""
        spec = request.get("spec") or {}
        reference = spec.get("boundObjectRef") or {}
        name, uid = reference.get("name"), reference.get("uid")
        if (reference.get("apiVersion"), reference.get("kind")) != ("v1", "Pod") or not name:
            return "node requested token not bound to a pod"
        if not uid:
            return "node requested token with a pod binding without a uid"
        pod = await self._pod(namespace, str(name))
        if pod["metadata"]["uid"] != uid:
            return (
                f"the UID in the bound object reference ({uid}) does not match the UID in record. "
                "The object might have been deleted and then recreated"
            )
        if (pod.get("spec") or {}).get("nodeName") != user.node_name:
            return "node requested token bound to a pod scheduled on a different node"
        return self._audience(user, namespace, account, pod, spec.get("audiences") or [])

    async def _pod(self, namespace: str, name: str) -> Obj:
        pods = self._registry.resource("", "v1", "pods")
        entry = pods.peek(namespace, name)
        if entry is None:
            await pods.sync()
            entry = pods.peek(namespace, name)
            if entry is None:
                raise NotFound.of("pods", name)
        return entry.decoded()

    def _audience(self, user: UserInfo, namespace: str, account: str, pod: Obj, audiences: list[Any]) -> str:
        if len(audiences) > 1:
            return "node may only request 0 or 1 audiences"
        wanted = str(audiences[0]) if audiences else ""
        if wanted in self._audiences(namespace, pod):
            return ""
        asked = Attributes(
            verb=AUDIENCE_VERB,
            is_resource=True,
            version="v1",
            resource=wanted,
            namespace=namespace,
            name=account,
        )
        if self._authorize is not None and self._authorize(user, asked).allowed:
            return ""
        return (
            f'audience "{wanted}" not found in pod spec volume, '
            f"{user.name} is not authorized to request tokens for this audience"
        )

    def _audiences(self, namespace: str, pod: Obj) -> Iterator[str]:
        for volume in (pod.get("spec") or {}).get("volumes") or ():
            for source in (volume.get("projected") or {}).get("sources") or ():
                if source.get("serviceAccountToken") is not None:
                    yield source["serviceAccountToken"].get("audience") or ""
            driver = self._driver(namespace, pod, volume)
            found = self._seen("storage.k8s.io", "csidrivers", "", driver) if driver else {}
            for request in (found.get("spec") or {}).get("tokenRequests") or ():
                yield request.get("audience") or ""

    def _driver(self, namespace: str, pod: Obj, volume: Obj) -> str:
        """The CSI driver behind a volume, or ""."""
        if volume.get("csi"):
            return str(volume["csi"].get("driver") or "")
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if volume.get("ephemeral"):
            claim = f"{pod['metadata']['name']}-{volume['name']}"
        if not claim:
            return ""
        bound = (self._seen("", "persistentvolumeclaims", namespace, claim).get("spec") or {}).get("volumeName")
        source = self._seen("", "persistentvolumes", "", bound).get("spec") or {} if bound else {}
        return str((source.get("csi") or {}).get("driver") or "")

    def _seen(self, group: str, plural: str, namespace: str, name: str) -> Obj:
        entry = self._registry.resource(group, "v1", plural).peek(namespace, name)
        return entry.decoded() if entry is not None else {}
