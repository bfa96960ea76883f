"""Pulling an image for a node: one pull per image at a time, quick answers for registries that cannot be reached.

Owns the threads that talk to registries (in the host's network namespace) and the memory of who is unreachable. The
wire is `runtime.images.registry`'s. Called by the image service.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from linux import netns
from machinery.log import get, kv
from proto.cri.v1 import cri_pb2 as cri
from runtime.faults import PullUnreachable, RuntimeFault
from runtime.images.reference import Reference, normalize
from runtime.images.registry import Credentials, Registry, fetch
from runtime.images.store import ImageRecord
from runtime.images.table import ImageTable

log = get("runtime.images")
REACH_TIMEOUT = 1.5  # real seconds to connect to a registry
UNREACHABLE_FOR = 10.0  # real seconds for which a failed attempt answers for the next ones
NOTE = "registry unreachable, using the image loaded on this machine"


def plan_credentials(auth: cri.AuthConfig) -> Credentials:
    """Credentials of a pull request. Pure."""
    username, password = auth.username, auth.password
    if not username and auth.auth:
        with suppress(binascii.Error, UnicodeDecodeError):
            username, _, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
    return Credentials(username, password.rstrip("\0"), auth.identity_token, auth.registry_token)


class Puller:
    """Pulls for one node."""

    def __init__(self, table: ImageTable, *, host_netns: str = "", insecure: tuple[str, ...] = ()) -> None:
        self._table = table
        self._host_netns = host_netns
        self._insecure = insecure
        self._running: dict[tuple[str, Credentials], asyncio.Task[str]] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._unreachable: dict[str, tuple[float, str]] = {}
        self._threads = ThreadPoolExecutor(8, "pull", self._enter)

    def _enter(self) -> None:
        if self._host_netns:
            try:
                netns.enter(self._host_netns)
            except OSError as error:  # raised here it would break all pulls; the machine's own network may do
                log.warning("Could not enter the host's network for pulls", extra=kv(error=error))

    async def pull(self, name: str, auth: cri.AuthConfig) -> str:
        """Pull an image; returns its id. Concurrent pulls of the same image share one."""
        reference = normalize(name)
        credentials = plan_credentials(auth)
        key = (str(reference), credentials)
        task = self._running.get(key)
        if task is None:
            task = asyncio.ensure_future(self._pull(reference, name, credentials))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(task)

    async def _pull(self, reference: Reference, name: str, credentials: Credentials) -> str:
        registry = Registry(reference, credentials, insecure=self._insecure)
        try:
            await self._reach(registry)
            digest, image = await self._call(registry)
        except PullUnreachable as error:
            loaded = self._table.find_loaded(name)
            if loaded is None:
                raise
            log.info("Satisfied pull without registry", extra=kv(image=str(reference), error=error.message))
            self._table.satisfied(loaded, NOTE)
            return loaded.id
        await asyncio.to_thread(self._table.pulled, name, digest, image)
        log.info("Pulled image", extra=kv(image=str(reference), digest=digest))
        return image.id

    async def _call(self, registry: Registry) -> tuple[str, ImageRecord]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, fetch, registry, self._table.store)

    async def _reach(self, registry: Registry) -> None:
        """Raise PullUnreachable quickly; many pulls share one attempt, and its failure for some seconds."""
        host = registry.host
        self._raise_if_unreachable(registry)
        probe = self._probes.get(host)
        if probe is None:
            probe = asyncio.ensure_future(self._probe(registry))
            self._probes[host] = probe
            probe.add_done_callback(lambda _: self._probes.pop(host, None))
        await asyncio.shield(probe)
        self._raise_if_unreachable(registry)

    def _raise_if_unreachable(self, registry: Registry) -> None:
        known = self._unreachable.get(registry.host)
        if known is not None and time.monotonic() < known[0]:
            raise PullUnreachable(registry.say(f"failed to do request: {registry.host}: {known[1]}"))

    async def _probe(self, registry: Registry) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(REACH_TIMEOUT + 0.5):
                await loop.run_in_executor(self._threads, registry.connect, REACH_TIMEOUT)
        except (TimeoutError, OSError, RuntimeFault) as error:
            if isinstance(error, TimeoutError) or not str(error):
                reason = "i/o timeout"
            else:
                reason = getattr(error, "strerror", "") or str(error)
            self._unreachable[registry.host] = (time.monotonic() + UNREACHABLE_FOR, reason)
        else:
            self._unreachable.pop(registry.host, None)

    def close(self) -> None:
        """Stop taking work; running threads end with their bounded requests."""
        self._threads.shutdown(wait=False, cancel_futures=True)
