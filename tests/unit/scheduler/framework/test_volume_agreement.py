"""The volume plugins' arrays against the slow reference, on random clusters, claim after claim."""
# mypy: disable-error-code="union-attr, type-var"

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from api.models import core_v1, meta_v1, storage_v1
from scheduler.framework.framework import Framework
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_framework
from scheduler.plugins.volume_binding import VolumeBinding
from tests.unit.scheduler.objects import node, pod
from tests.unit.scheduler.reference_volumes import COMPLETED, SELECTED, ZONE, PodOnNodes, Storage

HOST = "kubernetes.io/hostname"
DRIVER = "csi.example.com"
SIZES = ["1Gi", "2Gi", "3Gi"]
CLASSES: dict[str, tuple[str, bool]] = {  # provisioner, whether it waits for the consumer
    "local": ("kubernetes.io/no-provisioner", True),
    "cloud": (DRIVER, True),
    "now": (DRIVER, False),
}


@st.composite
def storages(draw: st.DrawFn, nodes: Sequence[str]) -> Storage:
    made = Storage()
    for name, (provisioner, delayed) in CLASSES.items():
        zones = draw(st.one_of(st.none(), st.lists(st.sampled_from("ab"), min_size=1, max_size=1)))
        expression = storage_topology(zones) if zones else None
        made.classes[name] = storage_v1.StorageClass(
            metadata=meta_v1.ObjectMeta(name=name),
            provisioner=provisioner,
            volumeBindingMode="WaitForFirstConsumer" if delayed else "Immediate",
            allowedTopologies=expression,
        )
    claims = [f"c{index}" for index in range(draw(st.integers(1, 4)))]
    for index in range(draw(st.integers(0, 5))):
        name = f"v{index}"
        where = draw(st.one_of(st.none(), st.lists(st.sampled_from(nodes), min_size=1, max_size=2, unique=True)))
        made.volumes[name] = volume(draw, name, where)
    for name in claims:
        made.claims[name] = draw(bindable(name, made, nodes))
    for name in nodes:
        if draw(st.booleans()):
            made.limits[name] = {DRIVER: draw(st.integers(0, 2))}
    if draw(st.booleans()):
        made.tracked.add(DRIVER)
        for index in range(draw(st.integers(0, 2))):
            made.capacities.append(
                msgspec.convert(
                    {
                        "metadata": {"name": f"k{index}", "namespace": "default"},
                        "storageClassName": draw(st.sampled_from(["cloud", "now"])),
                        "capacity": draw(st.sampled_from(SIZES)),
                        "nodeTopology": {"matchLabels": draw(st.sampled_from([{}, {"zone": "a"}, {"zone": "b"}]))},
                    },
                    storage_v1.CSIStorageCapacity,
                )
            )
    return made


def storage_topology(zones: Sequence[str]) -> list[core_v1.TopologySelectorTerm]:
    wanted = core_v1.TopologySelectorLabelRequirement(key="zone", values=list(zones))
    return [core_v1.TopologySelectorTerm(matchLabelExpressions=[wanted])]


def volume(draw: st.DrawFn, name: str, where: Sequence[str] | None) -> core_v1.PersistentVolume:
    spec: dict[str, object] = {
        "capacity": {"storage": draw(st.sampled_from(SIZES))},
        "accessModes": draw(st.sampled_from([["ReadWriteOnce"], ["ReadWriteOnce", "ReadWriteMany"]])),
        "storageClassName": draw(st.sampled_from(["local", "cloud"])),
    }
    if draw(st.booleans()):
        spec["csi"] = {"driver": DRIVER, "volumeHandle": draw(st.sampled_from(["h1", name]))}
    else:
        spec["local"] = {"path": "/x"}
    if where is not None:
        expression = {"key": HOST, "operator": "In", "values": list(where)}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    labels = draw(st.sampled_from([{}, {}, {ZONE: "a"}, {ZONE: "a__b"}]))
    meta = {"name": name, "labels": labels, "resourceVersion": "1"}
    phase = draw(st.sampled_from(["Available", "Available", "Released"]))
    return msgspec.convert({"metadata": meta, "spec": spec, "status": {"phase": phase}}, core_v1.PersistentVolume)


@st.composite
def bindable(draw: st.DrawFn, name: str, made: Storage, nodes: Sequence[str]) -> core_v1.PersistentVolumeClaim:
    how = draw(st.sampled_from(["free", "free", "bound", "selected", "immediate", "reserved", "lost volume"]))
    class_ = "now" if how == "immediate" else draw(st.sampled_from(["local", "cloud"]))
    modes = draw(st.sampled_from([["ReadWriteOnce"], ["ReadWriteMany"], ["ReadWriteOncePod"]]))
    spec: dict[str, object] = {
        "accessModes": modes,
        "storageClassName": class_,
        "resources": {"requests": {"storage": draw(st.sampled_from(SIZES))}},
    }
    noted: dict[str, str] = {}
    free = [each for each in made.volumes.values() if each.spec.claimRef is None]
    if how in ("bound", "reserved") and free:
        chosen = draw(st.sampled_from(free))
        ref = core_v1.ObjectReference(namespace="default", name=name, uid=f"uid-{name}")
        chosen.spec.claimRef = ref
        if how == "bound":
            spec["volumeName"] = chosen.metadata.name
            noted[COMPLETED] = "yes"
    elif how == "lost volume":
        spec["volumeName"] = "nowhere"
        noted[COMPLETED] = "yes"
    elif how == "selected":
        noted[SELECTED] = draw(st.sampled_from(nodes))
    meta = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "annotations": noted,
        "resourceVersion": "1",
    }
    return msgspec.convert(
        {"metadata": meta, "spec": spec, "status": {"phase": "Pending"}}, core_v1.PersistentVolumeClaim
    )


def feed(snapshot: ClusterSnapshot, storage: Storage) -> None:
    catalog = snapshot.volumes
    for name, claim in storage.claims.items():
        catalog.set_claim(("default", name), claim)
    for name, each in storage.volumes.items():
        catalog.set_volume(name, each)
    catalog.classes.update(storage.classes)
    for name, limits in storage.limits.items():
        drivers = [{"name": key, "nodeID": name, "allocatable": {"count": count}} for key, count in limits.items()]
        made = {"metadata": {"name": name}, "spec": {"drivers": drivers}}
        catalog.csi_nodes[name] = msgspec.convert(made, storage_v1.CSINode)
    for driver in storage.tracked:
        made = {"metadata": {"name": driver}, "spec": {"storageCapacity": True}}
        catalog.csi_drivers[driver] = msgspec.convert(made, storage_v1.CSIDriver)
    for each_capacity in storage.capacities:
        catalog.capacities[("default", each_capacity.metadata.name or "")] = each_capacity
    catalog.changed()


def binding_of(framework: Framework) -> VolumeBinding:
    (found,) = (each for each in framework.reserve if isinstance(each, VolumeBinding))
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_volumes_agree_with_the_reference_while_claims_are_given_away(data: st.DataObject) -> None:
    nodes = [
        node(f"n{index}", labels={"zone": zone, **({ZONE: zone} if data.draw(st.booleans()) else {})})
        for index, zone in enumerate(data.draw(st.lists(st.sampled_from("ab"), min_size=1, max_size=4)))
    ]
    storage = data.draw(storages([each.metadata.name or "" for each in nodes]))
    snapshot, framework = ClusterSnapshot(capacity=2), default_framework(rng=random.Random(3))
    for each in nodes:
        snapshot.set_node(each)
    feed(snapshot, storage)
    placed: list[core_v1.Pod] = []
    for index in range(data.draw(st.integers(1, 3))):
        wanted = data.draw(st.lists(st.sampled_from([*storage.claims, "absent"]), max_size=3, unique=True))
        sources = [core_v1.PersistentVolumeClaimVolumeSource(claimName=name) for name in wanted]
        volumes = [core_v1.Volume(name=f"v{at}", persistentVolumeClaim=each) for at, each in enumerate(sources)]
        made = pod(f"p{index}", volumes=volumes or None)
        info = PodInfo(made)
        reference = PodOnNodes(made, storage, placed)
        decision = framework.schedule(info, snapshot)
        rejection = reference.rejection()
        if rejection:
            event("rejected")
            assert decision.error is not None and decision.error.rejection == rejection
            continue
        expected = {each.metadata.name: reference.refusal(each) for each in nodes}
        verdicts = {each.node: list(each.reasons) for each in framework.explain(info, snapshot)}
        assert verdicts == {name: reasons for name, (reasons, _) in expected.items()}
        if decision.error is not None:
            event("refused")
            resolvable = sum(can for reasons, can in expected.values() if reasons)
            assert decision.error.resolvable_count() == resolvable
            continue
        event("placed")
        home = next(each for each in nodes if each.metadata.name == decision.node)
        _, chosen, provisions = reference.binding(home)
        assert framework.claim(info, decision.node, snapshot) is None
        assumed = binding_of(framework)._assumed.get(info.uid)
        given_away = {claim.metadata.name: each.metadata.name for claim, each in assumed.volumes} if assumed else {}
        assert given_away == chosen
        assert sorted(each.metadata.name or "" for each in (assumed.claims if assumed else ())) == sorted(provisions)
        if data.draw(st.booleans()):
            event("taken back")
            framework.release(info, decision.node, snapshot)
            continue
        made.spec.nodeName = decision.node
        snapshot.add_pod(info, decision.node)
        placed.append(made)
        for name, taken in chosen.items():
            ref = core_v1.ObjectReference(namespace="default", name=name, uid=f"uid-{name}")
            known = storage.volumes[taken]
            storage.volumes[taken] = msgspec.structs.replace(
                known, spec=msgspec.structs.replace(known.spec, claimRef=ref)
            )
        for name in provisions:
            claim = storage.claims[name]
            noted = {**(claim.metadata.annotations or {}), SELECTED: decision.node}
            meta = msgspec.structs.replace(claim.metadata, annotations=noted)
            storage.claims[name] = msgspec.structs.replace(claim, metadata=meta)
