"""Which nodes a volume is attached to and detached from, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import attachments as names
from api.models import core_v1, meta_v1
from controller_manager.attach_detach.patience import Patience
from controller_manager.attach_detach.plan import Attachment, Place, Plan, plan_volume
from controller_manager.attach_detach.view import is_over, place_of
from tests.unit.controller_manager.builders import node, pod

ATTACHED, PENDING, LEAVING = Attachment(attached=True), Attachment(), Attachment(attached=True, leaving=True)


def other(name: str) -> core_v1.Pod:
    made = pod(name)
    assert made.metadata is not None
    made.metadata.namespace = "elsewhere"
    return made


WEB, DB = [pod("web-0")], [pod("db-0", created=5)]


@pytest.mark.parametrize(
    ("places", "wanted"),
    [
        pytest.param({"n1": Place(WEB)}, Plan(attach=["n1"]), id="wanted"),
        pytest.param({"n1": Place(WEB, PENDING)}, Plan(pending=["n1"]), id="under way"),
        pytest.param({"n1": Place(WEB, ATTACHED)}, Plan(report=["n1"]), id="attached: the kubelet is told"),
        pytest.param({"n1": Place(WEB, ATTACHED, reported=True)}, Plan(), id="nothing to do"),
        pytest.param({"n1": Place(WEB, LEAVING, reported=True)}, Plan(retract=["n1"]), id="wanted again too late"),
        pytest.param({"n1": Place((), ATTACHED, mounted=True)}, Plan(), id="still mounted"),
        pytest.param({"n1": Place((), ATTACHED)}, Plan(detach={"n1": True}), id="unmounted"),
        pytest.param({"n1": Place((), PENDING)}, Plan(detach={"n1": True}), id="given up before it was attached"),
        pytest.param({"n1": Place((), LEAVING)}, Plan(), id="on its way"),
        pytest.param({"n1": Place((), None, reported=True)}, Plan(retract=["n1"]), id="a word left behind"),
        pytest.param(
            {"n1": Place((), ATTACHED, mounted=True, healthy=False, unwanted_for=100)},
            Plan(look_again=260),
            id="a silent node has six minutes",
        ),
        pytest.param(
            {"n1": Place((), ATTACHED, mounted=True, healthy=False, unwanted_for=360)},
            Plan(detach={"n1": False}),
            id="six minutes are over",
        ),
        pytest.param(
            {"n1": Place((), ATTACHED, mounted=True, unwanted_for=9999)}, Plan(), id="a healthy node has all the time"
        ),
        pytest.param(
            {"n1": Place((), ATTACHED, mounted=True, healthy=False, out_of_service=True)},
            Plan(detach={"n1": False}),
            id="out of service",
        ),
        pytest.param(
            {"n1": Place(WEB, ATTACHED, out_of_service=True, reported=True, mounted=True)},
            Plan(),
            id="out of service, but a pod still counts on it",
        ),
    ],
)
def test_one_node(places: dict[str, Place], wanted: Plan) -> None:
    assert plan_volume(places, exclusive=True) == wanted


@pytest.mark.parametrize(
    ("users", "message"),
    [
        pytest.param(WEB, "Volume is already used by pod(s) web-0", id="one"),
        pytest.param([pod("b"), pod("a")], "Volume is already used by pod(s) a, b", id="two"),
        pytest.param(
            [*WEB, other("x")],
            "Volume is already used by pod(s) web-0 and 1 pod(s) in different namespaces",
            id="some elsewhere",
        ),
        pytest.param(
            [other("x"), other("y")], "Volume is already used by 2 pod(s) in different namespaces", id="all elsewhere"
        ),
        pytest.param(
            [],
            "Volume is already exclusively attached to one node and can't be attached to another",
            id="nobody any more",
        ),
    ],
)
def test_a_volume_for_one_node_is_refused_to_a_second(users: list[core_v1.Pod], message: str) -> None:
    places = {"n1": Place(users, ATTACHED, reported=True, mounted=True), "n2": Place(DB)}
    plan = plan_volume(places, exclusive=True)
    assert not plan.attach
    assert [(each.node, each.pod, each.message) for each in plan.refused] == [("n2", DB[0], message)]
    assert plan_volume(places, exclusive=False) == Plan(attach=["n2"])


def test_of_two_nodes_that_want_it_the_older_pod_wins() -> None:
    plan = plan_volume({"n1": Place(DB), "n2": Place(WEB)}, exclusive=True)
    assert plan.attach == ["n2"]
    assert [each.node for each in plan.refused] == ["n1"]


ATTACHMENTS = st.none() | st.builds(Attachment, st.booleans(), st.booleans(), st.sampled_from(["", "no"]))
PLACES = st.builds(
    Place,
    st.sampled_from([(), WEB, DB]),
    ATTACHMENTS,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 359.0, 361.0]),
)


@given(st.dictionaries(st.sampled_from(["n1", "n2", "n3"]), PLACES), st.booleans())
def test_a_plan_is_safe(places: dict[str, Place], exclusive: bool) -> None:
    plan = plan_volume(places, exclusive=exclusive)
    if exclusive:
        present = sum(place.attachment is not None for place in places.values())
        assert len(plan.attach) <= max(1 - present, 0)
    for name, ask in plan.detach.items():
        place = places[name]
        assert not place.pods
        assert not place.mounted or place.out_of_service or (not place.healthy and place.unwanted_for >= 360)
        assert ask or place.out_of_service or not place.healthy
    for name in plan.report:
        assert places[name].attachment == replace(places[name].attachment or PENDING, attached=True, leaving=False)
    for name, place in places.items():
        waits = name in {each.node for each in plan.refused}
        if place.pods and place.attachment is None:
            assert waits != (name in plan.attach), "a pod is served or told"


@pytest.mark.parametrize(
    ("made", "over"),
    [
        pytest.param(pod("a"), False, id="running"),
        pytest.param(pod("a", phase="Succeeded"), True, id="finished"),
        pytest.param(pod("a", phase="Failed", deleted=True), True, id="failed"),
    ],
)
def test_pods_that_are_over_want_nothing(made: core_v1.Pod, over: bool) -> None:
    assert is_over(made) is over


@pytest.mark.parametrize(
    ("state", "over"),
    [
        pytest.param(core_v1.ContainerState(running=core_v1.ContainerStateRunning()), False, id="runs"),
        pytest.param(core_v1.ContainerState(waiting=core_v1.ContainerStateWaiting()), True, id="waits"),
        pytest.param(
            core_v1.ContainerState(terminated=core_v1.ContainerStateTerminated(exitCode=0)), True, id="has ended"
        ),
    ],
)
def test_a_pod_being_deleted_is_over_when_nothing_in_it_runs(state: core_v1.ContainerState, over: bool) -> None:
    doomed = pod("a", deleted=True)
    assert doomed.status is not None and doomed.status.containerStatuses is not None
    doomed.status.containerStatuses[0].state = state
    assert is_over(doomed) is over


def test_a_node_that_is_gone_may_still_have_it_mounted() -> None:
    place = place_of(None, "v", None)
    assert (place.mounted, place.healthy) == (True, False)


def test_only_the_taint_with_no_execute_takes_a_node_out_of_service() -> None:
    key = "node.kubernetes.io/out-of-service"
    for effect, out in (("NoExecute", True), ("NoSchedule", False)):
        place = place_of(node("n1", "Unknown", taints=[core_v1.Taint(effect=effect, key=key)]), "v", None)
        assert place.out_of_service is out
        assert place.healthy is False


def test_names_are_upstreams() -> None:
    assert names.unique_name("d", "h") == "kubernetes.io/csi/d^h"
    # sha256 of handle, driver and node in one
    digest = "810e918882659b4712768005b066b9e11d5a3c187eec2c9634d7922e3a3ebada"
    assert names.attachment_name("block.csi.example", "vol-1", "worker-1") == f"csi-{digest}"


@pytest.mark.parametrize(
    ("modes", "one"),
    [
        (["ReadWriteOnce"], True),
        (["ReadWriteOncePod"], True),
        (["ReadWriteOnce", "ReadOnlyMany"], False),
        (["ReadWriteMany"], False),
        ([], False),
    ],
)
def test_access_modes_say_on_how_many_nodes(modes: list[str], one: bool) -> None:
    volume = core_v1.PersistentVolume(
        metadata=meta_v1.ObjectMeta(name="pv"), spec=core_v1.PersistentVolumeSpec(accessModes=modes)
    )
    assert names.one_node_at_a_time(volume) is one


# ---- patience ----


def test_complaints_about_a_failure_are_spaced_ever_wider() -> None:
    patience, now, delays = Patience(), 100.0, []
    for _ in range(12):
        due, wait = patience.complaint("v", "n1", now, "no")
        assert due
        assert patience.complaint("v", "n1", now + wait / 2, "no")[0] is False
        delays.append(wait)
        now += wait
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == 122.0


def test_slowness_is_complained_of_after_two_minutes_and_an_error_at_once() -> None:
    patience = Patience()
    assert patience.complaint("v", "n1", 0.0, "") == (False, 120.0)
    assert patience.complaint("v", "n1", 119.0, "") == (False, 1.0)
    assert patience.complaint("v", "n1", 120.0, "") == (True, 120.5)
    assert patience.complaint("v", "n2", 0.0, "") == (False, 120.0)
    assert patience.complaint("v", "n2", 3.0, "no space") == (True, 0.5)


def test_what_is_over_is_forgotten() -> None:
    patience = Patience()
    assert patience.unwanted_for("v", "n1", 10.0, unwanted=True) == 0.0
    assert patience.unwanted_for("v", "n1", 15.0, unwanted=True) == 5.0
    assert patience.unwanted_for("v", "n1", 16.0, unwanted=False) == 0.0
    assert patience.unwanted_for("v", "n1", 17.0, unwanted=True) == 0.0, "counts anew"
    assert patience.first_refusal("v", "n2", "uid")
    assert not patience.first_refusal("v", "n2", "uid")
    patience.keep("v", unwanted=["n1"], attaching=[], told=["n2"])
    assert len(patience) == 1
    patience.keep("v", unwanted=[], attaching=[], told=[])
    assert len(patience) == 0
