"""Reads ConfigMaps, Secrets and service account tokens for pods.

Concurrent reads of one object are one request, and every use is a fresh read, so a pod sees what was there when it was
made. The last answers are kept only for when the API server is away: containers must still restart then. Tokens are
kept until four fifths of their life are over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from api.models import authentication_v1, core_v1, storage_v1
from client.client import Client
from machinery.clock import Clock
from machinery.errors import NotFound, ServiceUnavailable, Timeout
from machinery.meta import rfc3339

T = TypeVar("T")
KEPT = 500  # objects remembered for when the API server is away


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    renew: float
    expires: str


class ObjectReader:
    """One per kubelet."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._flights: dict[tuple[Any, str, str], asyncio.Future[Any]] = {}
        self._kept: dict[tuple[Any, str, str], Any] = {}
        self._tokens: dict[tuple[str, str, int], _Token] = {}

    async def config_maps(self, namespace: str, names: Iterable[str]) -> dict[str, core_v1.ConfigMap | None]:
        """By name; None where there is none. Raises StatusError."""
        return {name: await self._read(core_v1.ConfigMap, namespace, name) for name in names}

    async def secrets(self, namespace: str, names: Iterable[str]) -> dict[str, core_v1.Secret | None]:
        """By name; None where there is none. Raises StatusError."""
        return {name: await self._read(core_v1.Secret, namespace, name) for name in names}

    async def claim(self, namespace: str, name: str) -> core_v1.PersistentVolumeClaim | None:
        """None where there is none. Raises StatusError."""
        return await self._read(core_v1.PersistentVolumeClaim, namespace, name)

    async def volume(self, name: str) -> core_v1.PersistentVolume | None:
        """None where there is none. Raises StatusError."""
        return await self._read(core_v1.PersistentVolume, None, name)

    async def csi_driver(self, name: str) -> storage_v1.CSIDriver | None:
        """None where there is none. Raises StatusError."""
        return await self._read(storage_v1.CSIDriver, None, name)

    async def _read(self, kind: type[T], namespace: str | None, name: str) -> T | None:
        key = (kind, namespace or "", name)

        async def fetch() -> T | None:
            try:
                found: T | None = await self._client.get(kind, name, namespace)
            except NotFound:
                found = None
            except (ServiceUnavailable, Timeout):
                if key not in self._kept:
                    raise
                return self._kept[key]  # type: ignore[no-any-return]
            self._kept.pop(key, None)
            self._kept[key] = found
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
            return found

        return await self._shared(key, fetch)

    async def _shared(self, key: tuple[Any, str, str], fetch: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Join a read under way; the first asker does it for all."""
        flight = self._flights.get(key)
        if flight is not None:
            try:
                joined: T = await asyncio.shield(flight)
            except asyncio.CancelledError:
                if not flight.cancelled():
                    raise
            else:
                return joined
        mine: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._flights[key] = mine
        try:
            result = await fetch()
        except BaseException as error:
            if isinstance(error, Exception):
                mine.set_exception(error)
                mine.exception()  # somebody may or may not be waiting
            else:
                mine.cancel()
            raise
        else:
            mine.set_result(result)
            return result
        finally:
            if self._flights.get(key) is mine:
                del self._flights[key]

    async def token(self, pod: core_v1.Pod, audience: str, lifetime: int) -> str:
        """A token of the pod's service account, bound to the pod. Raises StatusError."""
        return (await self.token_until(pod, audience, lifetime))[0]

    async def token_until(self, pod: core_v1.Pod, audience: str, lifetime: int) -> tuple[str, str]:
        """The same with the time at which it expires (RFC 3339)."""
        key = ((pod.metadata.uid if pod.metadata else None) or "", audience, lifetime)
        kept = self._tokens.get(key)
        now = self._clock.monotonic()
        if kept is not None and now < kept.renew:
            return kept.text, kept.expires
        try:
            fresh = await self._request(pod, audience, lifetime)
        except (ServiceUnavailable, Timeout):
            if kept is None:
                raise
            return kept.text, kept.expires
        self._tokens[key] = fresh
        return fresh.text, fresh.expires

    async def _request(self, pod: core_v1.Pod, audience: str, lifetime: int) -> _Token:
        meta, spec = pod.metadata, pod.spec
        assert meta is not None and spec is not None
        request = authentication_v1.TokenRequest(
            spec=authentication_v1.TokenRequestSpec(
                audiences=[audience] if audience else [],
                expirationSeconds=lifetime,
                boundObjectRef=authentication_v1.BoundObjectReference(
                    apiVersion="v1", kind="Pod", name=meta.name, uid=meta.uid
                ),
            )
        )
        account = spec.serviceAccountName or "default"
        answer = await self._client.create_subresource(
            core_v1.ServiceAccount, account, meta.namespace, "token", request
        )
        if answer.status is None or not answer.status.token:
            raise NotFound("the API server issued no token")
        expires = answer.status.expirationTimestamp
        told = rfc3339(expires) if expires is not None else ""
        return _Token(answer.status.token, self._clock.monotonic() + self._life(expires) * 0.8, told)

    def _life(self, expires: datetime | None) -> float:
        return max(-self._clock.elapsed(expires), 0.0) if expires is not None else 0.0

    def forget(self, uid: str) -> None:
        """Drop the tokens of a pod that is gone."""
        for key in [key for key in self._tokens if key[0] == uid]:
            del self._tokens[key]
