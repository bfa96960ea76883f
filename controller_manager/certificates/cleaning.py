"""Deletes requests nobody needs any more: decided ones after an hour, pending ones after a day, expired ones at once.

Owns these times (upstream's). Never decides about a request.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata; the models call it optional.

from __future__ import annotations

import base64
from datetime import datetime

from api.models import certificates_v1
from client.client import Client
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.environment import Environment
from machinery import log
from machinery.clock import Clock
from machinery.errors import Conflict, NotFound
from machinery.log import kv
from machinery.meta import ObjectKey

DECIDED, PENDING = 3600.0, 24 * 3600.0  # cluster seconds
_log = log.get(__name__)


def expires(certificate: str) -> datetime | None:
    """When an issued certificate ends; None when it cannot be read."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(base64.b64decode(certificate)).not_valid_after_utc
    except ValueError:
        return None


def time_left(request: certificates_v1.CertificateSigningRequest, clock: Clock) -> float:
    """Cluster seconds until the request may go; 0 or less means now."""
    status = request.status
    conditions = (status.conditions if status else None) or []
    made = request.metadata.creationTimestamp or clock.now()
    left = [
        DECIDED - clock.elapsed(condition.lastUpdateTime or condition.lastTransitionTime or made)
        for condition in conditions
    ]
    if not conditions:
        left.append(PENDING - clock.elapsed(made))
    if status is not None and status.certificate and (ends := expires(status.certificate)) is not None:
        left.append((ends - clock.now()).total_seconds() * clock.scale)
    return min(left)


class CertificateCleaner:
    """Reads a lister, deletes through the client."""

    def __init__(self, env: Environment) -> None:
        self._client: Client = env.client
        self._clock = env.clock
        self._requests: Informer[certificates_v1.CertificateSigningRequest] = env.informers.informer(
            certificates_v1.CertificateSigningRequest
        )
        self.controller = Controller("csrcleaner", self.reconcile, clock=env.clock, informers=[self._requests])
        self.controller.watches(self._requests)

    async def reconcile(self, key: ObjectKey) -> Result:
        request = self._requests.lister.get(key)
        if request is None or request.metadata.deletionTimestamp is not None:
            return DONE
        left = time_left(request, self._clock)
        if left > 0:
            return Result(requeue_after=left)
        try:
            await self._client.delete(certificates_v1.CertificateSigningRequest, key.name, uid=request.metadata.uid)
        except (NotFound, Conflict):
            return DONE
        _log.info("Deleted an old certificate signing request", extra=kv(name=key.name))
        return DONE


def build(env: Environment) -> list[Controller]:
    return [CertificateCleaner(env).controller]
