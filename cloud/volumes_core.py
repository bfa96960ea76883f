"""The cloud's decisions about block volumes: what may be asked for, and what is to be done to disks next.

Owns all changes of volumes, and the refusals. No I/O and no clock: `now` (cluster seconds) and what is seen of machines
come in, effects come out and are given out again until they are reported done. Called by `cloud.volumes_engine` and,
with requests, by `cloud.volumes_service`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from cloud.model import ZONES, State
from cloud.volumes_model import (
    ATTACH_DELAY,
    BUSY_RETRY,
    DETACH_DELAY,
    FAILED_RETRY,
    FAILURES,
    GIB,
    TYPES,
    Attachment,
    Volume,
    VolumeFailure,
    attach_limit,
)
from machinery import quantity
from machinery.errors import AlreadyExists, BadRequest, Conflict, InternalError, NotFound, TooManyRequests

MAX_VOLUMES: Final = 10_000
_NAME = re.compile(r"[a-zA-Z0-9]([-._a-zA-Z0-9]{0,126}[a-zA-Z0-9])?")

Sight = Literal["working", "broken", "gone", "unknown"]
"""What is seen of a machine; unknown: nobody has looked yet."""


@dataclass(frozen=True)
class Effect:
    """`shape` makes the disk or gives it its size, `plug` and `unplug` concern its attachment, `remove` ends it."""

    verb: Literal["shape", "plug", "unplug", "remove"]
    volume: str


class VolumeCore:
    """The volumes of a state and the rules by which they change. `sight` tells of a machine by its name."""

    def __init__(self, state: State, sight: Callable[[str], Sight]) -> None:
        self.state = state
        self._sight = sight

    # ---- look ----

    def find(self, name: str) -> Volume:
        """By id or by name. Raises NotFound."""
        found = self.state.volumes.get(name)
        if found is None:
            found = next((each for each in self.state.volumes.values() if each.name == name), None)
        if found is None:
            raise NotFound(f'volume "{name}" not found')
        return found

    def attached_to(self, instance: str) -> list[Volume]:
        """Those that take a slot of a machine."""
        volumes = self.state.volumes.values()
        return [each for each in volumes if each.attachment is not None and each.attachment.instance == instance]

    def slots(self, instance: str) -> int:
        """How many volumes a machine can have."""
        known = self.state.instances.get(instance)
        kind = self.state.types.get(known.type) if known is not None else None
        return attach_limit(quantity.milli(kind.cpu) / 1000 if kind is not None else 2)

    # ---- requests ----

    def create(self, name: str, size: int, zone: str, kind: str, now: float) -> Volume:
        """A volume of at least so many bytes (whole GiB are made); the one of that name when it is alike."""
        if not _NAME.fullmatch(name):
            raise BadRequest(f"volume name {name!r}: want up to 128 of letters, digits, '-', '.' and '_'")
        type_ = TYPES.get(kind)
        if type_ is None:
            raise BadRequest(f'volume type "{kind}" not found (known: {", ".join(TYPES)})')
        if zone not in self._zones():
            raise BadRequest(f'zone "{zone}" not found (known: {", ".join(self._zones())})')
        size = self._checked_size(size, kind)
        known = next((each for each in self.state.volumes.values() if each.name == name), None)
        if known is not None:
            if (known.zone, known.type, known.size, known.deleting) != (zone, kind, size, False):
                raise AlreadyExists(f'volume "{name}" already exists and is not like this')
            return known
        if len(self.state.volumes) >= MAX_VOLUMES:
            raise TooManyRequests(f"a cloud has at most {MAX_VOLUMES} volumes")
        self.state.nextVolume += 1
        digest = hashlib.sha256(f"{self.state.cluster}/{self.state.nextVolume}/{name}".encode()).hexdigest()
        made = Volume(f"vol-{digest[:17]}", name, size, zone, kind, now, now)
        self.state.volumes[made.id] = made
        return made

    def _zones(self) -> list[str]:
        used = {each.zone for each in self.state.instances.values()}
        used.update(zone for group in self.state.groups.values() for zone in group.zones)
        return [*ZONES, *sorted(used - set(ZONES))]

    @staticmethod
    def _checked_size(size: int, kind: str) -> int:
        whole = -(-size // GIB)
        if not 0 < whole <= TYPES[kind].maxGiB:
            raise BadRequest(f"a volume of type {kind} has 1 to {TYPES[kind].maxGiB} GiB, not {whole}")
        return whole * GIB

    def delete(self, volume: Volume) -> None:
        """Raises Conflict while it is attached."""
        if volume.attachment is not None:
            raise Conflict(f"volume {volume.id} is attached to {volume.attachment.instance}")
        volume.deleting, volume.retryAt, volume.message = True, 0.0, ""

    def expand(self, volume: Volume, size: int, now: float) -> None:
        """To at least so many bytes; never smaller. Raises BadRequest."""
        size = self._checked_size(size, volume.type)
        if volume.deleting:
            raise Conflict(f"volume {volume.id} is being deleted")
        if size < volume.size:
            raise BadRequest(f"volume {volume.id} has {volume.size // GIB} GiB and cannot become smaller")
        if size != volume.size:
            volume.spent, volume.billed = volume.cost(now), now
            volume.size = size

    def attach(self, volume: Volume, instance: str, now: float) -> None:
        """Begin to plug it in; to the same machine again: no change."""
        there = volume.attachment
        if volume.deleting:
            raise Conflict(f"volume {volume.id} is being deleted")
        if there is not None:
            if there.instance != instance:
                raise Conflict(f"volume {volume.id} is already attached to instance {there.instance}")
            if there.phase == "detaching":
                raise Conflict(f"volume {volume.id} is still being detached from instance {instance}")
            return
        self._check_machine(volume, instance)
        taken, slots = len(self.attached_to(instance)), self.slots(instance)
        if taken >= slots:
            raise TooManyRequests(f"instance {instance} has {taken} volumes, which is as many as it can have")
        if volume.fault == "attach-fails":
            raise InternalError(f"volume {volume.id} could not be attached to instance {instance}")
        volume.attachment = Attachment(instance, "attaching", now + ATTACH_DELAY)

    def _check_machine(self, volume: Volume, instance: str) -> None:
        known = self.state.instances.get(instance)
        if known is not None and known.hollow:
            raise BadRequest(f"instance {instance} is simulated and cannot have volumes")
        running = known.phase == "running" if known is not None else True
        if not running or self._sight(instance) not in ("working", "broken"):
            raise NotFound(f'instance "{instance}" not found')
        zone = known.zone if known is not None else ZONES[0]
        if zone != volume.zone:
            raise BadRequest(f"volume {volume.id} is in zone {volume.zone}, instance {instance} in zone {zone}")

    def detach(self, volume: Volume, instance: str, now: float, *, force: bool = False) -> None:
        """Begin to pull it out of a machine ("": of whichever it is in); not attached there: no change.

        Without `force` a working machine that has it mounted keeps it until it has it no longer.
        """
        there = volume.attachment
        if there is None or instance not in ("", there.instance):
            return
        if there.phase != "detaching":
            there.phase, there.at = "detaching", now + DETACH_DELAY
        if force and not there.force:
            there.force, there.at = True, now

    def fail(self, volume: Volume, mode: str) -> None:
        """From now on this goes wrong; "": nothing does."""
        if mode not in ("", *FAILURES):
            raise BadRequest(f"failure mode {mode!r} (known: {', '.join(FAILURES)})")
        found: dict[str, VolumeFailure] = {"": "", **{each: each for each in FAILURES}}
        volume.fault = found[mode]

    # ---- passes ----

    def tick(self, now: float) -> list[Effect]:
        """What is to be done now."""
        for volume in self.state.volumes.values():
            self._follow_machine(volume, now)
        return [Effect(verb, volume.id) for volume in self.state.volumes.values() for verb in self._due(volume, now)]

    def due(self) -> float | None:
        """The earliest instant at which a pass has something to do; None: when somebody asks for something."""
        return min((at for each in self.state.volumes.values() for at in self._instants(each)), default=None)

    def _follow_machine(self, volume: Volume, now: float) -> None:
        """A machine that is taken away lets go of its volumes."""
        there = volume.attachment
        if there is not None and self._sight(there.instance) == "gone" and not there.force:
            self.detach(volume, there.instance, now, force=True)

    def _instants(self, volume: Volume) -> Iterator[float]:
        there = volume.attachment
        if volume.deleting or volume.made != volume.size:
            yield volume.retryAt
        if there is None or there.phase == "attached" or self._hangs(volume):
            return
        if volume.made or there.phase == "detaching":
            yield there.at

    @staticmethod
    def _hangs(volume: Volume) -> bool:
        there = volume.attachment
        if there is None or there.force:
            return False
        return volume.fault == {"attaching": "attach-hangs", "detaching": "detach-hangs"}.get(there.phase)

    def _due(self, volume: Volume, now: float) -> Iterator[Literal["shape", "plug", "unplug", "remove"]]:
        there = volume.attachment
        if volume.deleting:
            if now >= volume.retryAt:
                yield "remove"
            return
        if volume.made != volume.size and now >= volume.retryAt:
            yield "shape"
        if there is None or there.phase == "attached" or now < there.at or self._hangs(volume):
            return
        if there.phase == "detaching":
            yield "unplug"
        elif volume.made:
            yield "plug"

    def farewell(self, volume: Volume) -> Literal["ask", "pull", "bury"]:
        """How a device leaves its machine (`cloud.volumes_media`): one that may work is asked, unless forced."""
        there = volume.attachment
        if there is None or self._sight(there.instance) in ("broken", "gone"):
            return "bury"
        return "pull" if there.force else "ask"

    # ---- what became of effects ----

    def shaped(self, volume: Volume, size: int) -> None:
        """It has this size."""
        volume.made, volume.message = size, ""

    def plugged(self, volume: Volume) -> None:
        """The machine has the device."""
        there = volume.attachment
        if there is None:
            return
        there.plugged, there.message = True, ""
        if there.phase == "attaching":
            there.phase = "attached"

    def unplugged(self, volume: Volume, now: float, *, busy: bool) -> None:
        """The machine has it no longer; `busy`: it still uses it."""
        there = volume.attachment
        if there is None or there.phase != "detaching":
            return
        if busy:
            there.at, there.message = now + BUSY_RETRY, f"instance {there.instance} still uses it"
        else:
            volume.attachment = None

    def removed(self, volume: Volume, now: float) -> None:
        """It is no more; what it cost is remembered."""
        self.state.volumesSpent += volume.cost(now)
        self.state.volumes.pop(volume.id, None)

    def failed(self, effect: Effect, now: float, why: str) -> None:
        """It will be tried again."""
        volume = self.state.volumes.get(effect.volume)
        if volume is None:
            return
        if effect.verb in ("shape", "remove"):
            volume.message, volume.retryAt = why, now + FAILED_RETRY
        elif volume.attachment is not None:
            volume.attachment.message, volume.attachment.at = why, now + FAILED_RETRY
