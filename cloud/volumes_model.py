"""What the cloud knows of block volumes: types, sizes, where one is attached, what goes wrong with it. Plain data.

Owns shapes and units (bytes; dollars; cluster seconds since the epoch, as in `cloud.model`). Decides nothing
(`cloud.volumes_core` does). Part of the one state file.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

GIB: Final = 1 << 30
MONTH: Final = 730 * 3600.0  # cluster seconds, as clouds bill
ATTACH_DELAY: Final = 1.0
DETACH_DELAY: Final = 0.5
BUSY_RETRY: Final = 1.0  # between looks at a device that is still mounted
FAILED_RETRY: Final = 5.0

VolumeFailure = Literal["", "attach-hangs", "attach-fails", "detach-hangs"]
FAILURES: tuple[VolumeFailure, ...] = ("attach-hangs", "attach-fails", "detach-hangs")
AttachmentPhase = Literal["attaching", "attached", "detaching"]


class VolumeType(msgspec.Struct, frozen=True):
    """A kind of disk: dollars per GiB and month, and how big one may be (GiB)."""

    name: str
    pricePerMonth: float
    maxGiB: int = 16384


TYPES: Final = {each.name: each for each in (VolumeType("standard", 0.045), VolumeType("ssd", 0.10))}
DEFAULT_TYPE: Final = "standard"


class Attachment(msgspec.Struct, omit_defaults=True):
    """Where a volume is plugged in, or is about to be or no longer to be. `at`: the next step is not done before.

    `plugged`: the machine has, or may have, the device. `force`: it is pulled even when the machine uses it.
    """

    instance: str
    phase: AttachmentPhase
    at: float
    plugged: bool = False
    force: bool = False
    message: str = ""


class Volume(msgspec.Struct, omit_defaults=True):
    """One disk. `size` is what it shall have, `made` what it has (0: it is not there yet); bytes.

    `spent`: dollars until `billed`; from then on the present size is paid for.
    """

    id: str
    name: str
    size: int
    zone: str
    type: str
    created: float
    billed: float
    made: int = 0
    spent: float = 0.0
    deleting: bool = False
    attachment: Attachment | None = None
    fault: VolumeFailure = ""
    message: str = ""
    retryAt: float = 0.0

    @property
    def state(self) -> str:
        """As clouds call it: creating, available, attaching, in-use, detaching or deleting."""
        if self.deleting:
            return "deleting"
        if not self.made:
            return "creating"
        if self.attachment is None:
            return "available"
        return "in-use" if self.attachment.phase == "attached" else self.attachment.phase

    @property
    def hourly(self) -> float:
        """Dollars per hour."""
        return self.size / GIB * TYPES[self.type].pricePerMonth * 3600.0 / MONTH

    def cost(self, now: float) -> float:
        """Dollars so far."""
        return self.spent + max(0.0, now - self.billed) / 3600.0 * self.hourly


def attach_limit(cores: float) -> int:
    """How many volumes a machine with so many CPUs can have, as small machines of clouds have fewer slots."""
    return 8 if cores < 2 else 16 if cores < 8 else 28
