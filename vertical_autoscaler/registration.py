"""The webhook's own MutatingWebhookConfiguration, made anew whenever it is missing or was changed.

Owns the object `vpa-webhook-config`. The webhook is reached by a URL: it is a process beside the API server.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from api import resources
from api.models import admissionregistration_v1
from client.client import Client, PatchType
from machinery.errors import NotFound
from vertical_autoscaler.objects import GROUP, VPAS

NAME: Final = "vpa-webhook-config"
WEBHOOK: Final = "vpa.k8s.io"
TIMEOUT: Final = 10
CONFIGURATIONS: Final = resources.of(admissionregistration_v1.MutatingWebhookConfiguration)
Obj = dict[str, Any]


def configuration(url: str, authority: bytes) -> Obj:
    """The object. `authority`: PEM of who signed the serving certificate."""
    webhook = {
        "name": WEBHOOK,
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": url, "caBundle": base64.b64encode(authority).decode()},
        "failurePolicy": "Ignore",
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT,
        "rules": [
            _rule("", "v1", "pods", ["CREATE"]),
            _rule(GROUP, "*", VPAS.plural, ["CREATE", "UPDATE"]),
        ],
    }
    return {
        "apiVersion": CONFIGURATIONS.group_version,
        "kind": CONFIGURATIONS.kind,
        "metadata": {"name": NAME},
        "webhooks": [webhook],
    }


def _rule(group: str, version: str, plural: str, operations: list[str]) -> Obj:
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "resources": [plural],
        "operations": operations,
        "scope": "*" if group == "" else "Namespaced",
    }


async def keep(client: Client, wanted: Obj) -> None:
    """See that the configuration is as wanted. Raises StatusError."""
    try:
        found = await client.get(CONFIGURATIONS, NAME)
    except NotFound:
        found = {}
    if not _includes(found.get("webhooks") or [], wanted["webhooks"]):
        await client.patch(CONFIGURATIONS, NAME, wanted, type=PatchType.APPLY)


def _includes(found: Any, wanted: Any) -> bool:
    """Whether what is wanted is there; defaults of the server may be there besides."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_includes(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(_includes(one, other) for one, other in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)
