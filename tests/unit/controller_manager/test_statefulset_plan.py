from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import apps_v1, core_v1, meta_v1
from controller_manager.history import data_of, plan_revision, plan_truncation, same_data, template_of
from controller_manager.statefulset import identity
from controller_manager.statefulset.plan import Creation, most_unavailable, observe, plan_step, sort_out
from machinery.clock import VirtualClock
from tests.unit.controller_manager.builders import at

CLOCK = VirtualClock(at(0))
OLD, NEW = "web-old", "web-new"


def web(replicas: int = 3, **spec: Any) -> apps_v1.StatefulSet:
    update = spec.pop("update", {"partition": 0})
    strategy = apps_v1.StatefulSetUpdateStrategy(
        type=spec.pop("strategy", "RollingUpdate"),
        rollingUpdate=apps_v1.RollingUpdateStatefulSetStrategy(**update) if update is not None else None,
    )
    start = spec.pop("start", None)
    return apps_v1.StatefulSet(
        metadata=meta_v1.ObjectMeta(name="web", namespace="default", uid="uid-web", generation=1),
        spec=apps_v1.StatefulSetSpec(
            replicas=replicas,
            serviceName="web",
            selector=meta_v1.LabelSelector(matchLabels={"app": "web"}),
            template=core_v1.PodTemplateSpec(
                metadata=meta_v1.ObjectMeta(labels={"app": "web"}),
                spec=core_v1.PodSpec(containers=[core_v1.Container(name="main", image="x")]),
            ),
            updateStrategy=strategy,
            ordinals=apps_v1.StatefulSetOrdinals(start=start) if start is not None else None,
            **spec,
        ),
    )


def pod(
    ordinal: int,
    state: str = "ready",
    revision: str = NEW,
    *,
    name: str | None = None,
    since: float = -1000,
) -> core_v1.Pod:
    """A pod that is ready, unready, pending, failed, succeeded or terminating."""
    phase = {"pending": "Pending", "failed": "Failed", "succeeded": "Succeeded"}.get(state, "Running")
    ready = "True" if state in ("ready", "terminating") else "False"
    name = name or f"web-{ordinal}"
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(
            name=name,
            namespace="default",
            uid=f"uid-{name}",
            labels={"app": "web", identity.REVISION: revision},
            deletionTimestamp=at(0) if state == "terminating" else None,
        ),
        spec=core_v1.PodSpec(containers=[]),
        status=core_v1.PodStatus(
            phase=phase,
            conditions=[core_v1.PodCondition(type="Ready", status=ready, lastTransitionTime=at(since))],
        ),
    )


def names(pods: Any) -> list[str]:
    return [each.metadata.name for each in pods]


@pytest.mark.parametrize(
    ("spec", "pods", "create", "delete"),
    [
        pytest.param({}, [], [0], [], id="the first"),
        pytest.param({}, [pod(0)], [1], [], id="the next"),
        pytest.param({}, [pod(0, "unready")], [], [], id="wait for ready"),
        pytest.param({}, [pod(0, "terminating"), pod(1), pod(2)], [], [], id="wait for the end"),
        pytest.param({}, [pod(1), pod(2)], [0], [], id="fill a gap"),
        pytest.param({"minReadySeconds": 60}, [pod(0, since=-30)], [], [], id="wait for min ready"),
        pytest.param({"minReadySeconds": 60}, [pod(0, since=-60)], [1], [], id="min ready over"),
        pytest.param({"start": 3}, [pod(3)], [4], [], id="start ordinal"),
        pytest.param({"podManagementPolicy": "Parallel"}, [pod(1, "unready")], [0, 2], [], id="parallel"),
        pytest.param({"replicas": 1}, [pod(0), pod(1), pod(2)], [], ["web-2"], id="shrink from the top"),
        pytest.param({"replicas": 1}, [pod(0), pod(1), pod(2, "terminating")], [], [], id="shrink one by one"),
        pytest.param({"replicas": 1}, [pod(0, "unready"), pod(1)], [], [], id="unhealthy: do not shrink"),
        pytest.param({"replicas": 1}, [pod(0), pod(1), pod(2, "unready")], [], ["web-2"], id="the unhealthy one goes"),
        pytest.param({"replicas": 1}, [pod(0), pod(1, "unready"), pod(2)], [], ["web-2"], id="healthy above unhealthy"),
        pytest.param(
            {"replicas": 1}, [pod(0), pod(1, "unready"), pod(2, "unready")], [], [], id="wait above the unhealthy one"
        ),
        pytest.param(
            {"replicas": 0, "podManagementPolicy": "Parallel"}, [pod(0), pod(1)], [], ["web-1", "web-0"], id="all go"
        ),
        pytest.param({}, [pod(0), pod(1), pod(2, revision=OLD)], [], ["web-2"], id="update from the top"),
        pytest.param({}, [pod(0), pod(1, revision=OLD), pod(2)], [], ["web-1"], id="update goes on"),
        pytest.param({}, [pod(0, revision=OLD), pod(1), pod(2, "unready")], [], [], id="update waits"),
        pytest.param(
            {"update": {"partition": 2}}, [pod(0, revision=OLD), pod(1, revision=OLD), pod(2)], [], [], id="partition"
        ),
        pytest.param(
            {"strategy": "OnDelete", "update": None}, [pod(i, revision=OLD) for i in range(3)], [], [], id="OnDelete"
        ),
        pytest.param(
            {"update": {"partition": 0, "maxUnavailable": 2}, "podManagementPolicy": "Parallel"},
            [pod(i, revision=OLD) for i in range(3)],
            [],
            ["web-2", "web-1"],
            id="two at once",
        ),
        pytest.param(
            {"update": {"partition": 0, "maxUnavailable": 1}, "podManagementPolicy": "Parallel"},
            [pod(0, "unready", OLD), pod(1, revision=OLD), pod(2, revision=OLD)],
            [],
            ["web-0"],
            id="broken old pods first",
        ),
    ],
)
def test_next_step(spec: dict[str, Any], pods: list[core_v1.Pod], create: list[int], delete: list[str]) -> None:
    step = plan_step(web(**spec), pods, NEW, CLOCK)
    assert [each.ordinal for each in step.create] == create
    assert names(step.delete) == delete
    assert step.recreate == ()


def test_pods_below_the_partition_are_made_from_the_old_template() -> None:
    step = plan_step(web(3, update={"partition": 2}, podManagementPolicy="Parallel"), [], NEW, CLOCK)
    assert step.create == (Creation(0, False), Creation(1, False), Creation(2, True))


def test_ended_pods_are_made_again() -> None:
    step = plan_step(web(1), [pod(0, "failed")], NEW, CLOCK)
    assert names(step.recreate) == ["web-0"]


members = st.dictionaries(
    st.integers(0, 7),
    st.tuples(st.sampled_from(["ready", "unready", "pending", "failed", "terminating"]), st.sampled_from([OLD, NEW])),
).map(lambda found: [pod(ordinal, *rest) for ordinal, rest in found.items()])


@given(members, st.integers(0, 6), st.integers(0, 3), st.integers(0, 3), st.one_of(st.none(), st.integers(1, 3)))
def test_order_is_kept(
    pods: list[core_v1.Pod], replicas: int, start: int, partition: int, unavailable: int | None
) -> None:
    update: dict[str, Any] = {"partition": partition}
    if unavailable is not None:
        update["maxUnavailable"] = unavailable
    set_ = web(replicas, start=start, update=update)
    step = plan_step(set_, pods, NEW, CLOCK)
    wanted, condemned = sort_out(set_, pods)
    healthy = {n for n, each in wanted.items() if each.status and each.metadata and _healthy(each)}
    assert len(step.create) + len(step.recreate) <= 1
    assert not (step.create and step.delete)
    for made in step.create:
        assert made.ordinal not in wanted
        assert all(lower in healthy for lower in range(start, made.ordinal)), "a pod waits for all before it"
        assert made.updated == (made.ordinal >= start + partition)
    victims = [identity.ordinal_of(set_, each) for each in step.delete]
    if condemned and victims:
        assert victims == [condemned[0][0]], "the highest goes first"
        assert len(healthy) == replicas
    elif victims:
        assert all(n is not None and n >= start + partition for n in victims)
        assert all(identity.revision_of(each) == OLD for each in step.delete)
        missing = replicas - len(healthy - set(victims))
        assert missing <= max(unavailable or 1, replicas - len(healthy))
    assert all(each.metadata and each.metadata.deletionTimestamp is None for each in step.delete)


def _healthy(each: core_v1.Pod) -> bool:
    assert each.metadata
    assert each.status
    assert each.status.conditions
    running = each.status.phase == "Running" and each.status.conditions[0].status == "True"
    return running and each.metadata.deletionTimestamp is None


def _stays_failed(each: core_v1.Pod) -> bool:
    return bool(each.status and each.status.phase == "Failed" and each.metadata and not each.metadata.deletionTimestamp)


@given(members, st.integers(0, 6), st.booleans(), st.randoms(use_true_random=False))
def test_every_set_arrives(pods: list[core_v1.Pod], replicas: int, parallel: bool, random: Any) -> None:
    """Carry out the steps on a model whose pods become ready and end in random order: it always gets there."""
    set_ = web(replicas, podManagementPolicy="Parallel" if parallel else "OrderedReady")
    found = {each.metadata.name or "": each for each in pods if each.metadata}
    for _ in range(200):
        step = plan_step(set_, list(found.values()), NEW, CLOCK)
        for made in step.create:
            assert f"web-{made.ordinal}" not in found
            found[f"web-{made.ordinal}"] = pod(made.ordinal, "pending", NEW if made.updated else OLD)
        for victim in [*step.delete, *step.recreate]:
            assert victim.metadata
            victim.metadata.deletionTimestamp = at(0)
        moving = [name for name, each in found.items() if not _healthy(each) and not _stays_failed(each)]
        if moving:  # one pod makes progress
            name = random.choice(sorted(moving))
            each = found[name]
            assert each.metadata
            if each.metadata.deletionTimestamp is not None:
                del found[name]
            else:
                ordinal = identity.ordinal_of(set_, each)
                assert ordinal is not None
                found[name] = pod(ordinal, "ready", identity.revision_of(each))
        elif not step.create and not step.delete:
            break
    assert sorted(found) == [f"web-{n}" for n in range(replicas)]
    status, _ = observe(set_, list(found.values()), OLD, NEW, 0, CLOCK)
    assert (status.updatedReplicas or 0, status.currentRevision) == (replicas, NEW)


@pytest.mark.parametrize(
    ("value", "most"),
    [
        pytest.param(1, 1, id="number"),
        pytest.param("30%", 2, id="rounded up"),
        pytest.param("0%", 1, id="at least one"),
    ],
)
def test_max_unavailable(value: int | str, most: int) -> None:
    assert most_unavailable(value, 4) == most


@pytest.mark.parametrize(
    ("name", "ordinal"),
    [
        pytest.param("web-0", 0, id="zero"),
        pytest.param("web-12", 12, id="two digits"),
        pytest.param("web-a", None, id="no number"),
        pytest.param("web-1-2", None, id="another set"),
        pytest.param("other-1", None, id="another name"),
    ],
)
def test_ordinals(name: str, ordinal: int | None) -> None:
    assert identity.ordinal_of(web(), pod(0, name=name)) == ordinal


def revision(name: str, number: int, image: str) -> apps_v1.ControllerRevision:
    template = core_v1.PodTemplateSpec(spec=core_v1.PodSpec(containers=[core_v1.Container(name="main", image=image)]))
    return apps_v1.ControllerRevision(
        metadata=meta_v1.ObjectMeta(name=name, creationTimestamp=at(number)), data=data_of(template), revision=number
    )


def test_revisions_are_reused_and_renumbered() -> None:
    past = [revision("a", 1, "x:1"), revision("b", 2, "x:2")]
    assert plan_revision([], data_of(template_of(past[0]))) == (None, 1)
    assert plan_revision(past, data_of(template_of(past[1]))) == (past[1], 2)
    assert plan_revision(past, data_of(template_of(past[0]))) == (past[0], 3)
    assert plan_revision(past, data_of(template_of(revision("c", 0, "x:3")))) == (None, 3)
    assert same_data(past[0], data_of(template_of(past[0])))


def test_truncation_spares_what_is_in_use() -> None:
    past = [revision(name, number, f"x:{number}") for number, name in enumerate("abcd", 1)]
    assert names(plan_truncation(past, {"a"}, 1)) == ["b", "c"]
    assert plan_truncation(past, set("abcd"), 0) == []
