"""Writing managedFields down at the end of a write. Owns which write keeps, replaces or forgets the entries.

Pure; called by `ResourceStore`, which gets an `Account` for every way of writing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apiserver.apply.ownership import Entry, same_but_time

Obj = dict[str, Any]
Account = Callable[[Obj, Obj, Any], list[Entry]]
"""managedFields after a write, from the old object, the new one, and what the client sent as such."""


def as_it_was(old: Obj, new: Obj, given: Any) -> list[Entry]:
    """Writes of the server itself have no manager."""
    found: list[Entry] = old["metadata"].get("managedFields") or []
    return found


def as_sent(old: Obj, new: Obj, given: Any) -> list[Entry]:
    """An apply has accounted for itself."""
    return given or []


def set_managed(new: Obj, old: Obj, managed: list[Entry]) -> None:
    """Write the entries down; a change of nothing but their times is none."""
    meta, before = new["metadata"], old["metadata"].get("managedFields") or []
    if not managed:
        meta.pop("managedFields", None)
        return
    if managed is not before and managed != before and same_but_time(managed, before):
        meta["managedFields"] = before
        if new == old:
            return
    meta["managedFields"] = managed
