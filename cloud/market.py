"""The spot market: when a machine that is only lent will be asked back. Pure.

Interruptions come at a constant rate whatever a machine's age, so lives are exponentially distributed, and drawing one
anew when the rate changes is as fair as having known it from the start. Lots are hashes, not a generator's: the same
machine has the same fate in every run of the same history.
"""

from __future__ import annotations

import hashlib
import math

from cloud.cost import HOUR
from cloud.model import Group, Instance, State

_FULL = 1 << 64


def rate_of(state: State, group: Group | None) -> float:
    """Interruptions per machine and hour."""
    if group is not None and group.interruptions is not None:
        return group.interruptions
    return state.market.interruptions


def draw(state: State, instance: Instance, now: float) -> float | None:
    """The instant at which a machine that runs at `now` gets its notice; None: never."""
    rate = rate_of(state, state.groups.get(instance.group))
    if not instance.spot or rate <= 0:
        return None
    lot = f"{state.market.seed}/{state.market.draws}/{instance.name}/{instance.created!r}".encode()
    share = (int.from_bytes(hashlib.blake2b(lot, digest_size=8).digest()) + 1) / _FULL  # in (0, 1]
    return now - math.log(share) / rate * HOUR
