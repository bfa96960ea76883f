"""What to do with an object, given the state of its owners.

Pure. Called by controller.py, which finds out the owners' states.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from controller_manager.garbage_collector.graph import FOREGROUND, ORPHAN, OwnerRef


class OwnerState(Enum):
    SOLID = "exists"
    WAITING = "exists, is being deleted in the foreground, and waits for its dependents"
    ABSENT = "does not exist"


class Delete(NamedTuple):
    """Delete the object with this propagation policy."""

    policy: str


class DropOwners(NamedTuple):
    """Keep the object, but take these owners off it: they are gone, or wait for it although others need it."""

    uids: frozenset[str]


class Keep(NamedTuple):
    """Nothing to do."""


Action = Delete | DropOwners | Keep


def plan_collection(
    owners: Iterable[OwnerRef],
    states: Mapping[str, OwnerState],
    *,
    finalizers: Iterable[str] = (),
    has_dependents: bool = False,
) -> Action:
    """One solid owner keeps an object; without any it goes."""
    by_state: dict[OwnerState, set[str]] = {state: set() for state in OwnerState}
    references = list(owners)
    if not references:
        return Keep()
    for reference in references:
        by_state[states[reference.uid]].add(reference.uid)
    if by_state[OwnerState.SOLID]:
        lost = by_state[OwnerState.ABSENT] | by_state[OwnerState.WAITING]
        return DropOwners(frozenset(lost)) if lost else Keep()
    if by_state[OwnerState.WAITING] and has_dependents:
        # The owner waits for us, so we must wait for our own dependents in turn.
        return Delete("Foreground")
    if ORPHAN in finalizers:
        return Delete("Orphan")
    return Delete("Foreground" if FOREGROUND in finalizers else "Background")
