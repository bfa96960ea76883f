"""One aggregated APIService: does its backend answer, and what does it tell of itself?

Owns: the loop of checks with its backoff, the Available condition, and the last discovery that was heard. Several API
servers run it side by side: they find the same and write only what differs. Run by `aggregation.aggregator`.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

from apiserver.aggregation import learn
from apiserver.aggregation.fetch import Answer, FetchError, fetch
from apiserver.aggregation.identity import FrontProxy
from apiserver.aggregation.model import (
    API_SERVICES,
    PASSED,
    ApiService,
    ServiceRef,
    Verdict,
    plan_backends,
    plan_condition,
    plan_missing,
)
from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.discovery import RemoteVersion
from apiserver.registry.context import RequestContext
from apiserver.registry.store import Registry
from machinery.errors import NotFound, StatusError
from machinery.log import kv
from machinery.meta import rfc3339

log = logging.getLogger("apiserver.aggregation")

SERVICE_LABEL = "kubernetes.io/service-name"
RECHECK, LEARN_AGAIN = 30.0, 60.0  # cluster seconds
FIRST_BACKOFF, LAST_BACKOFF = 0.1, 30.0  # cluster seconds, doubled in between
ATTEMPTS = 5  # questions asked at once: one good endpoint is enough
Obj = dict[str, Any]


class Locator:
    """Finds the endpoints of Services in the server's own caches."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def service(self, ref: ServiceRef) -> Obj | None:
        entry = self._registry.resource("", "v1", "services").peek(ref.namespace, ref.name)
        return entry.decoded() if entry is not None else None

    def slices(self, ref: ServiceRef) -> Iterator[Obj]:
        for entry in self._registry.resource("discovery.k8s.io", "v1", "endpointslices").entries(ref.namespace):
            if entry.labels.get(SERVICE_LABEL) == ref.name:
                yield entry.decoded()

    def backends(self, ref: ServiceRef) -> list[tuple[str, int]]:
        return plan_backends(ref, self.service(ref), self.slices(ref))


async def write_condition(registry: Registry, name: str, verdict: Verdict) -> None:
    """Note the Available condition down, unless it stands there already or the object is gone."""
    store = registry.resource(*API_SERVICES)
    now = rfc3339(registry.clock.now())

    def change(current: Obj) -> Obj:
        return {**current, "status": plan_condition(current.get("status") or {}, verdict, now)}

    context = RequestContext(SYSTEM_API_SERVER, field_manager="kube-apiserver", user_agent="kube-apiserver")
    try:
        await store.mutate(context, "", name, change, "status", tracker=store.tracker)
    except NotFound:
        return
    except StatusError as error:
        log.warning("Could not note availability", extra=kv(apiservice=name, error=error.message))


class Backend:
    """Watches over one APIService with a Service."""

    def __init__(
        self, spec: ApiService, registry: Registry, locator: Locator, front: FrontProxy, changed: Callable[[], None]
    ) -> None:
        self.spec = spec
        self.openapi_url = ""
        self.openapi_document = b""
        """The OpenAPI v3 document, gzipped, where it had to be made from v2; the backend has no other."""
        self._registry = registry
        self._locator = locator
        self._front = front
        self._changed = changed
        self._wake = asyncio.Event()
        self._told: RemoteVersion | None = None
        self._resources: tuple[Obj, ...] = ()
        self._fresh = False
        self._learned_at: float | None = None

    def update(self, spec: ApiService) -> None:
        """The object has changed. What this loop itself writes is no news to it."""
        before, self.spec = self.spec, spec
        if before.service != spec.service or before.ca != spec.ca or before.insecure != spec.insecure:
            self._learned_at = None
            self.wake()
        if before.available != spec.available:
            self._changed()

    def wake(self) -> None:
        """Look again at once."""
        self._wake.set()

    @property
    def version(self) -> RemoteVersion:
        """What discovery tells of it."""
        spec = self.spec
        return RemoteVersion(
            spec.group,
            spec.version,
            spec.group_priority,
            spec.version_priority,
            available=spec.available,
            fresh=self._fresh and spec.available,
            resources=self._resources,
        )

    async def run(self) -> None:
        """Until cancelled."""
        clock, failures = self._registry.clock, 0
        while True:
            self._wake.clear()
            try:
                passed = await self._look()
            except Exception:
                # Whatever a backend sends must not end the server.
                log.exception("Failed to look at a backend", extra=kv(apiservice=self.spec.name))
                passed = False
            self._tell()
            failures = 0 if passed else failures + 1
            pause = min(FIRST_BACKOFF * 2 ** min(failures, 16), LAST_BACKOFF) if failures else RECHECK
            timer = clock.call_later(pause, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    async def _look(self) -> bool:
        """Judge, note it down, and hear what there is when it is time for that. Whether all went well."""
        now = self._registry.clock.monotonic()
        verdict = await self._judge()
        if verdict != self.spec.condition:
            await write_condition(self._registry, self.spec.name, verdict)
        if verdict.status != "True":
            self._fresh, self._learned_at = False, None
            return False
        if self._learned_at is None or now - self._learned_at >= LEARN_AGAIN:
            return await self._learn()
        return True

    def _tell(self) -> None:
        if self.version != self._told:
            self._told = self.version
            self._changed()

    # -- asking -------------------------------------------------------------------------------------------------------

    async def _judge(self) -> Verdict:
        ref = self.spec.service
        assert ref is not None
        service = self._locator.service(ref)
        missing = plan_missing(ref, service, list(self._locator.slices(ref)))
        if missing is not None:
            return missing
        problem = await self._probe(ref)
        return Verdict("False", "FailedDiscoveryCheck", problem) if problem else PASSED

    async def _probe(self, ref: ServiceRef) -> str:
        """ "" when some endpoint answers."""
        tasks = [asyncio.ensure_future(self._probe_one(ref)) for _ in range(ATTEMPTS)]
        problem = ""
        try:
            for each in asyncio.as_completed(tasks):
                problem = await each
                if not problem:
                    return ""
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return problem

    async def _probe_one(self, ref: ServiceRef) -> str:
        backends = self._locator.backends(ref)
        if not backends:
            return f'no endpoints available for service "{ref.name}"'
        address = random.choice(backends)  # spreading load, no secret
        url = f"https://{address[0]}:{address[1]}{self.spec.path}"
        try:
            answer = await fetch(address, self.spec.path, self._front.unverified(), ref.host)
        except (FetchError, OSError) as error:
            return f"failing or missing response from {url}: {error}"
        if not 200 <= answer.status < 300:
            return f"failing or missing response from {url}: bad status from {url}: {answer.status}"
        return ""

    async def get(self, path: str, headers: dict[str, str], seconds: float) -> Answer:
        """Ask the backend, its certificate checked. Raises FetchError."""
        ref = self.spec.service
        backends = self._locator.backends(ref) if ref is not None else []
        if ref is None or not backends:
            raise FetchError("service unavailable")
        try:
            tls = self._front.context(self.spec)
        except (ValueError, OSError) as error:
            raise FetchError(str(error)) from error
        return await fetch(random.choice(backends), path, tls, ref.host, headers, seconds)

    async def _learn(self) -> bool:
        """Hear what there is; what was heard before stays, marked as stale, when that fails."""
        try:
            self._resources = await self._discovery()
            self.openapi_url, self.openapi_document = await self._openapi()
        except (FetchError, ValueError) as error:
            log.warning("Could not discover", extra=kv(apiservice=self.spec.name, error=error))
            self._fresh = False
            return False
        self._fresh = True
        self._learned_at = self._registry.clock.monotonic()
        return True

    async def _discovery(self) -> tuple[Obj, ...]:
        spec = self.spec
        answer = await self.get("/apis" if spec.group else "/api", {"accept": learn.ACCEPT}, 5.0)
        if answer.status == 200 and "as=APIGroupDiscoveryList" in answer.headers.get("content-type", ""):
            found = learn.from_aggregated(spec, answer.body)
            if found is not None:
                return found
        answer = await self.get(spec.path, {"accept": "application/json"}, 5.0)
        if answer.status != 200:
            raise FetchError(f"{spec.path} answered with status {answer.status}")
        return learn.from_list(spec, answer.body)

    async def _openapi(self) -> tuple[str, bytes]:
        """Where the OpenAPI v3 document is, and itself where it had to be made here."""
        answer = await self.get("/openapi/v3", {"accept": "application/json"}, 5.0)
        if answer.status == 200:
            return learn.openapi_url(self.spec, answer.body), b""
        older = await self.get("/openapi/v2", {"accept": "application/json"}, 5.0)
        if older.status != 200:
            return "", b""
        from apiserver.aggregation.openapi_v3 import translated

        made = translated(self.spec.path, older.body)
        if made is None:
            return "", b""
        digest = hashlib.sha512(made).hexdigest().upper()
        return f"/openapi/v3{self.spec.path}?hash={digest}", gzip.compress(made, mtime=0)
