"""What a delete request does to an object."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.registry.context import DeleteOptions
from apiserver.registry.deletion import finished, gc_finalizers, plan_deletion, plan_namespace_deletion
from machinery.clock import VirtualClock
from machinery.meta import rfc3339

Obj = dict[str, Any]
CLOCK = VirtualClock()
NOW = rfc3339(CLOCK.now())
LATER = rfc3339(CLOCK.deadline(30))


class AtOnce:
    def grace_period(self, obj: Obj, requested: int | None) -> int | None:
        return None

    def prepare_graceful_delete(self, obj: Obj) -> None:
        raise AssertionError("never graceful")


class Graceful:
    def grace_period(self, obj: Obj, requested: int | None) -> int | None:
        return 30 if requested is None else requested

    def prepare_graceful_delete(self, obj: Obj) -> None:
        obj["metadata"]["generation"] += 1


def obj(**meta: Any) -> Obj:
    return {"metadata": {"name": "a", "generation": 1, **meta}}


def test_a_plain_object_goes() -> None:
    assert plan_deletion(obj(), DeleteOptions(), AtOnce(), CLOCK) == (None, True)


def test_finalizers_hold_it_and_the_original_stays_untouched() -> None:
    held = obj(finalizers=["x/y"])
    plan = plan_deletion(held, DeleteOptions(), AtOnce(), CLOCK)
    assert not plan.remove and plan.update is not None
    assert plan.update["metadata"] == {
        **held["metadata"],
        "generation": 2,
        "deletionTimestamp": NOW,
        "deletionGracePeriodSeconds": 0,
    }
    again = plan_deletion(plan.update, DeleteOptions(), AtOnce(), CLOCK)
    assert again == (plan.update, False)
    assert held == obj(finalizers=["x/y"])


@pytest.mark.parametrize(
    ("before", "options", "default", "after"),
    [
        pytest.param([], DeleteOptions(), False, [], id="nothing"),
        pytest.param([], DeleteOptions(), True, ["orphan"], id="orphan by default"),
        pytest.param(["orphan"], DeleteOptions(), False, ["orphan"], id="orphan kept"),
        pytest.param(["orphan"], DeleteOptions(propagation_policy="Background"), True, [], id="background"),
        pytest.param(
            ["x/y"], DeleteOptions(propagation_policy="Foreground"), False, ["x/y", "foregroundDeletion"], id="f"
        ),
        pytest.param(
            ["foregroundDeletion"], DeleteOptions(propagation_policy="Orphan"), False, ["orphan"], id="change"
        ),
        pytest.param([], DeleteOptions(orphan_dependents=True), False, ["orphan"], id="old flag"),
        pytest.param(["orphan"], DeleteOptions(orphan_dependents=False), True, [], id="old flag off"),
    ],
)
def test_gc_finalizers(before: list[str], options: DeleteOptions, default: bool, after: list[str]) -> None:
    assert gc_finalizers(before, options, orphan_by_default=default) == after


@pytest.mark.parametrize(
    ("meta", "asked", "update", "remove"),
    [
        pytest.param({}, None, {"deletionTimestamp": LATER, "deletionGracePeriodSeconds": 30}, False, id="default"),
        pytest.param({}, 0, {"deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0}, True, id="at once"),
        pytest.param({"finalizers": ["x/y"]}, 0, {"deletionGracePeriodSeconds": 0}, False, id="at once but held"),
        pytest.param({"deletionTimestamp": LATER, "deletionGracePeriodSeconds": 30}, None, None, False, id="pending"),
        pytest.param({"deletionTimestamp": LATER, "deletionGracePeriodSeconds": 30}, 60, None, False, id="no longer"),
        pytest.param(
            {"deletionTimestamp": LATER, "deletionGracePeriodSeconds": 30},
            5,
            {"deletionTimestamp": rfc3339(CLOCK.deadline(5)), "deletionGracePeriodSeconds": 5},
            False,
            id="shorter",
        ),
        pytest.param(
            {"deletionTimestamp": LATER, "deletionGracePeriodSeconds": 30},
            0,
            {"deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0},
            True,
            id="forced",
        ),
    ],
)
def test_graceful_deletion(meta: Obj, asked: int | None, update: Obj | None, remove: bool) -> None:
    plan = plan_deletion(obj(**meta), DeleteOptions(grace_period_seconds=asked), Graceful(), CLOCK)
    assert plan.remove is remove
    assert (plan.update is None) == (update is None)
    if plan.update is not None and update is not None:
        assert update.items() <= plan.update["metadata"].items()
        assert plan.update["metadata"]["generation"] == (1 if meta.get("deletionTimestamp") else 2)


def test_a_removal_that_was_cut_off_is_done_by_the_next_request() -> None:
    marked = obj(deletionTimestamp=NOW, deletionGracePeriodSeconds=0)
    assert plan_deletion(marked, DeleteOptions(), Graceful(), CLOCK) == (None, True)
    held = obj(deletionTimestamp=NOW, deletionGracePeriodSeconds=0, finalizers=["x/y"])
    assert plan_deletion(held, DeleteOptions(), Graceful(), CLOCK) == (held, False)


def test_namespaces_wait_for_their_own_finalizers() -> None:
    namespace = {"kind": "Namespace", "metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {}}
    plan = plan_namespace_deletion(namespace, DeleteOptions(), CLOCK)
    assert not plan.remove and plan.update is not None
    assert plan.update["status"] == {"phase": "Terminating"}
    assert "deletionGracePeriodSeconds" not in plan.update["metadata"]
    assert plan_namespace_deletion(plan.update, DeleteOptions(), CLOCK) == (None, False)
    finalized = {**plan.update, "spec": {}}
    assert finished(finalized, plan.update)
    assert not finished(plan.update, plan.update)
    assert plan_namespace_deletion(finalized, DeleteOptions(), CLOCK) == (None, True)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(obj(), obj(), False, id="alive"),
        pytest.param(obj(deletionTimestamp=NOW, deletionGracePeriodSeconds=0), obj(), True, id="last finalizer went"),
        pytest.param(
            obj(deletionTimestamp=NOW, deletionGracePeriodSeconds=0), obj(finalizers=["x/y"]), False, id="one is left"
        ),
        pytest.param(obj(deletionTimestamp=NOW, deletionGracePeriodSeconds=30), obj(), False, id="grace is left"),
    ],
)
def test_finished(old: Obj, new: Obj, expected: bool) -> None:
    assert finished(new, old) is expected
