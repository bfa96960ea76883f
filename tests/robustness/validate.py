"""The guarantees a Kubernetes API server gives, judged on a record.

Names follow etcd's documentation of watch guarantees: ordered, unique, reliable, resumable. Each validator returns the
violations it found as text; an empty list is the proof that a test asserts.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.robustness.history import Event, History

ERROR_LOST_WRITE = "broke Durable - an acknowledged write is gone"
ERROR_PHANTOM = "broke Durable - a refused write took effect"
ERROR_REUSED = "broke Linearizable - two acknowledged writes have one revision"
ERROR_ORDER = "broke Ordered - an event came before an older one"
ERROR_UNIQUE = "broke Unique - an event came twice"
ERROR_RELIABLE = "broke Reliable - an acknowledged write never reached a watch"
ERROR_INVENTED = "broke Reliable - a watch told of a write nobody made"


def durable(history: History) -> list[str]:
    """Every acknowledged write is visible at the end unless a later one replaced it."""
    found = []
    newest: dict[str, tuple[int, str, str]] = {}
    unknown: dict[str, set[str]] = {}
    for each in history.operations:
        if each.failed:
            continue
        if each.revision is None:
            unknown.setdefault(each.key, set()).add("" if each.kind == "delete" else each.value)
        elif each.revision >= newest.get(each.key, (-1, "", ""))[0]:
            newest[each.key] = (each.revision, each.kind, each.value)
    for key, (revision, kind, value) in newest.items():
        expected = {value} if kind != "delete" else {""}
        expected |= unknown.get(key, set())
        actual = history.final.get(key, ("", 0))[0]
        if actual not in expected:
            found.append(f"{ERROR_LOST_WRITE}: {key} is {actual!r}, acknowledged {kind} {value!r} at {revision}")
    made = {each.value for each in history.operations if not each.failed}
    found += [f"{ERROR_PHANTOM}: {key} is {value!r}" for key, (value, _) in history.final.items() if value not in made]
    return found


def linearizable(history: History) -> list[str]:
    """Revisions are given once."""
    seen: dict[int, str] = {}
    found = []
    for each in history.operations:
        if each.revision is None or each.failed or each.kind == "delete":  # a delete answers with the last state
            continue
        if each.revision in seen:
            found.append(f"{ERROR_REUSED}: {each.revision}: {seen[each.revision]} and {each.key}")
        seen[each.revision] = each.key
    return found


def ordered(history: History) -> list[str]:
    """Events of one watch come in the order of revisions."""
    found = []
    for watch in history.watches:
        last = watch.start
        for event in watch.events:
            if event.revision < last:
                found.append(f"{ERROR_ORDER}: {watch.name}: {event} after {last}")
            last = event.revision
    return found


def unique(history: History) -> list[str]:
    """No event twice, also not after a watch was resumed."""
    found = []
    for watch in history.watches:
        seen: set[tuple[str, str, int]] = set()
        for event in watch.events:
            identity = (event.kind, event.key, event.revision)
            if identity in seen:
                found.append(f"{ERROR_UNIQUE}: {watch.name}: {event}")
            seen.add(identity)
    return found


def reliable(history: History) -> list[str]:
    """Every acknowledged create and update after a watch's start is told by it, and nothing that nobody wrote."""
    found = []
    made = {(each.key, each.value) for each in history.operations if not each.failed}
    for watch in history.watches:
        told: dict[tuple[str, int], Event] = {(event.key, event.revision): event for event in watch.events}
        last = max((event.revision for event in watch.events), default=watch.start)
        for each in history.operations:
            if each.failed or each.revision is None or each.kind == "delete":
                continue
            if (
                watch.start < each.revision <= max(last, history.final_revision)
                and (each.key, each.revision) not in told
            ):
                found.append(f"{ERROR_RELIABLE}: {watch.name}: {each}")
        for event in watch.events:
            if event.kind != "DELETED" and (event.key, event.value) not in made:
                found.append(f"{ERROR_INVENTED}: {watch.name}: {event}")
    return found


VALIDATORS: tuple[Callable[[History], list[str]], ...] = (durable, linearizable, ordered, unique, reliable)


def violations(history: History) -> list[str]:
    """All violations of a record."""
    return [each for validator in VALIDATORS for each in validator(history)]
