"""Leader election by a Lease.

Owns: acquiring, renewing and releasing one Lease, fenced by resourceVersion, and the life of the work done as leader.
Never: shares leadership; whoever cannot renew in time stops its work before another may start. Used by the controller
manager and the scheduler when several of them run.

Clocks are not compared: a holder is believed to be alive while its record keeps changing, as seen from here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, NamedTuple

from api.models import coordination_v1, meta_v1
from client.client import Client
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound, StatusError
from machinery.log import kv

LEASE_SECONDS: Final = 15.0
RENEW_DEADLINE: Final = 10.0
RETRY_SECONDS: Final = 2.0
JITTER: Final = 1.2
_log = log.get(__name__)


class LeadershipLost(Exception):
    """The lease could not be renewed in time; the work was cancelled."""


class LeaseRecord(NamedTuple):
    """The part of a Lease that election reads and writes."""

    holder: str
    seconds: float
    acquired: datetime | None
    renewed: datetime | None
    transitions: int


def plan_claim(
    record: LeaseRecord | None, *, identity: str, age: float, now: datetime, lease_seconds: float
) -> LeaseRecord | None:
    """The record to write in order to be leader, or None while another holder is to be respected.

    `age` is how long (by our own clock) the record has not changed.
    """
    wanted = int(lease_seconds)
    if record is None:
        return LeaseRecord(identity, wanted, now, now, 0)
    if record.holder == identity:
        return record._replace(seconds=wanted, renewed=now, acquired=record.acquired or now)
    if record.holder and age < record.seconds:
        return None
    return LeaseRecord(identity, wanted, now, now, record.transitions + 1)


class LeaderElector:
    """Runs work only while holding the Lease `namespace/name`."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        namespace: str,
        name: str,
        identity: str,
        *,
        lease_seconds: float = LEASE_SECONDS,
        renew_deadline: float = RENEW_DEADLINE,
        retry_seconds: float = RETRY_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        if not lease_seconds > renew_deadline > retry_seconds > 0:
            raise ValueError("leader election needs lease > renew deadline > retry period > 0")
        self._client = client
        self._clock = clock
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._lease_seconds = lease_seconds
        self._renew_deadline = renew_deadline
        self._retry_seconds = retry_seconds
        self._rng = rng or random.Random()
        self._lease: coordination_v1.Lease | None = None
        self._observed_at = 0.0

    @property
    def holder(self) -> str:
        """Who holds the lease, as last seen; "" if nobody is known to."""
        return _record_of(self._lease).holder if self._lease is not None else ""

    async def run(self, on_started: Callable[[], Awaitable[None]]) -> None:
        """Acquire, then work and renew. Returns when the work ends; raises LeadershipLost when the lease is lost."""
        await self._acquire()
        _log.info("Became leader", extra=kv(lease=f"{self._namespace}/{self._name}", identity=self._identity))
        work = asyncio.ensure_future(on_started())
        renewal = asyncio.ensure_future(self._renew_until_lost())
        try:
            await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
            lost = renewal.done() and not work.done()
        finally:
            for task in (work, renewal):
                task.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)
            await self._release()
        if lost:
            raise LeadershipLost(f"lost lease {self._namespace}/{self._name}, held by {self.holder or 'nobody'}")
        work.result()

    async def _acquire(self) -> None:
        while not await self._try_claim():
            await self._clock.sleep(self._retry_seconds * (1.0 + JITTER * self._rng.random()))

    async def _renew_until_lost(self) -> None:
        renewed = self._clock.monotonic()
        while self._clock.monotonic() - renewed < self._renew_deadline:
            await self._clock.sleep(self._retry_seconds)
            try:
                async with self._clock.timeout(self._renew_deadline - (self._clock.monotonic() - renewed)):
                    if await self._try_claim():
                        renewed = self._clock.monotonic()
                    elif self.holder not in ("", self._identity):
                        return
            except TimeoutError:
                return

    async def _try_claim(self) -> bool:
        try:
            if self._lease is None or self.holder != self._identity:
                await self._observe()
            return await self._claim()
        except StatusError as error:
            # Conflict: another was faster. Anything else: the server is away or unwell. Either way look again later.
            _log.debug("Failed to claim lease", extra=kv(lease=self._name, error=error.message))
            try:
                await self._observe()
            except StatusError:
                return False
            return False

    async def _observe(self) -> None:
        try:
            lease = await self._client.get(coordination_v1.Lease, self._name, self._namespace)
        except NotFound:
            self._lease = None
            return
        if self._lease is None or _version(lease) != _version(self._lease):
            self._seen(lease)

    async def _claim(self) -> bool:
        now = self._clock.now_micro()
        record = _record_of(self._lease) if self._lease is not None else None
        claim = plan_claim(
            record,
            identity=self._identity,
            age=self._clock.monotonic() - self._observed_at,
            now=now,
            lease_seconds=self._lease_seconds,
        )
        if claim is None:
            return False
        if self._lease is None:
            fresh = coordination_v1.Lease(
                metadata=meta_v1.ObjectMeta(name=self._name, namespace=self._namespace), spec=_spec_of(claim)
            )
            self._seen(await self._client.create(fresh))
        else:
            self._lease.spec = _spec_of(claim)
            self._seen(await self._client.update(self._lease))
        return True

    async def _release(self) -> None:
        """Let another in without waiting for the lease to run out."""
        if self._lease is None or self.holder != self._identity:
            return
        now = self._clock.now_micro()
        record = _record_of(self._lease)
        self._lease.spec = _spec_of(LeaseRecord("", 1, now, now, record.transitions))
        try:
            async with self._clock.timeout(self._retry_seconds):
                self._seen(await self._client.update(self._lease))
        except (StatusError, TimeoutError) as error:
            _log.debug("Failed to release lease", extra=kv(lease=self._name, error=error))

    def _seen(self, lease: coordination_v1.Lease) -> None:
        self._lease = lease
        self._observed_at = self._clock.monotonic()


def _version(lease: coordination_v1.Lease) -> str:
    return (lease.metadata.resourceVersion or "") if lease.metadata is not None else ""


def _record_of(lease: coordination_v1.Lease) -> LeaseRecord:
    spec = lease.spec or coordination_v1.LeaseSpec()
    return LeaseRecord(
        spec.holderIdentity or "",
        float(spec.leaseDurationSeconds or 0),
        spec.acquireTime,
        spec.renewTime,
        spec.leaseTransitions or 0,
    )


def _spec_of(record: LeaseRecord) -> coordination_v1.LeaseSpec:
    return coordination_v1.LeaseSpec(
        holderIdentity=record.holder,
        leaseDurationSeconds=int(record.seconds),
        acquireTime=record.acquired,
        renewTime=record.renewed,
        leaseTransitions=record.transitions,
    )
