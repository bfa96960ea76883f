"""What may be launched now: the cloud's offerings, narrowed by node classes, without those that lately had no capacity.

Owns the memory of insufficient capacity: an offering that could not be had is left out for three minutes. A cloud that
does not answer leaves what was known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from machinery import log
from machinery.clock import Clock
from machinery.log import kv
from nodepool_autoscaler.model import Offering
from nodepool_autoscaler.objects import NodeClass
from nodepool_autoscaler.provider import Provider, ProviderError

UNAVAILABLE_FOR: Final = 180.0
Key = tuple[str, str, str]
_log = log.get(__name__)


class Catalog:
    """`refresh` asks; everything else answers from what is known."""

    def __init__(self, provider: Provider, clock: Clock) -> None:
        self._provider = provider
        self._clock = clock
        self._known: dict[bool, list[Offering]] = {False: [], True: []}
        self._missing: dict[bool, frozenset[Key]] = {False: frozenset(), True: frozenset()}
        self._refused: dict[tuple[bool, Key], float] = {}
        self.trouble = ""
        """Why the cloud could not be asked the last time, "" if it could."""

    async def refresh(self) -> None:
        """Ask for both kinds of machines."""
        try:
            for hollow in (False, True):
                self._known[hollow], self._missing[hollow] = await self._provider.offerings(hollow)
        except ProviderError as error:
            if str(error) != self.trouble:
                _log.warning("Lost sight of the cloud's offerings", extra=kv(error=error))
            self.trouble = str(error)
        else:
            self.trouble = ""

    def refuse(self, hollow: bool, keys: Iterable[Key]) -> None:
        """These could not be had."""
        until = self._clock.monotonic() + UNAVAILABLE_FOR
        self._refused |= {(hollow, key): until for key in keys}

    def unavailable(self, hollow: bool) -> frozenset[Key]:
        """What could not be had of late, or is known to be missing now."""
        now = self._clock.monotonic()
        self._refused = {each: until for each, until in self._refused.items() if until > now}
        return self._missing[hollow] | {key for kind, key in self._refused if kind == hollow}

    def known(self, node_class: NodeClass) -> list[Offering]:
        """All that a class may have, whether it can be had now or not."""
        spec = node_class.spec
        return [
            each
            for each in self._known[node_class.hollow]
            if (not spec.zones or each.zone in spec.zones)
            and (not spec.instanceTypes or each.instance_type in spec.instanceTypes)
        ]

    def available(self, node_class: NodeClass) -> tuple[Offering, ...]:
        """What a class may launch now."""
        missing = self.unavailable(node_class.hollow)
        return tuple(each for each in self.known(node_class) if each.key not in missing)

    def names(self) -> tuple[set[str], set[str]]:
        """Instance types and zones that exist at all."""
        listed = [each for offerings in self._known.values() for each in offerings]
        return {each.instance_type for each in listed}, {each.zone for each in listed}
