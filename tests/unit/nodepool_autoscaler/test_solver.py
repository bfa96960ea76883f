from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.models import apps_v1, core_v1, meta_v1
from nodepool_autoscaler import names
from nodepool_autoscaler.model import NODES, Outcome, Pool
from nodepool_autoscaler.requirements import Requirement
from tests.unit.nodepool_autoscaler.scene import GIB, ON_DEMAND, Scene, demand, offering, offerings
from tests.unit.scheduler.objects import affinity, container, expression, term, tolerate


def launched(outcome: Outcome) -> list[str]:
    return sorted(each.instance_types[0] for each in outcome.claims)


def spread(key: str, label: str = "web") -> core_v1.TopologySpreadConstraint:
    selector = meta_v1.LabelSelector(matchLabels={"app": label})
    return core_v1.TopologySpreadConstraint(
        maxSkew=1, topologyKey=key, whenUnsatisfiable="DoNotSchedule", labelSelector=selector
    )


def apart(key: str) -> core_v1.Affinity:
    selector = meta_v1.LabelSelector(matchLabels={"app": "web"})
    terms = [core_v1.PodAffinityTerm(topologyKey=key, labelSelector=selector)]
    anti = core_v1.PodAntiAffinity(requiredDuringSchedulingIgnoredDuringExecution=terms)
    return core_v1.Affinity(podAntiAffinity=anti)


def together(key: str) -> core_v1.Affinity:
    selector = meta_v1.LabelSelector(matchLabels={"app": "web"})
    terms = [core_v1.PodAffinityTerm(topologyKey=key, labelSelector=selector)]
    return core_v1.Affinity(podAffinity=core_v1.PodAffinity(requiredDuringSchedulingIgnoredDuringExecution=terms))


def test_one_pod_gets_the_cheapest_machine_that_holds_it() -> None:
    scene = Scene(Pool("default", node_class="real"))
    outcome = scene.solve(scene.pod("web", "1500m", "1Gi"))
    (claim,) = outcome.claims
    assert claim.offerings[0].key == ("m-2x4", "a", names.SPOT)
    assert claim.instance_types == ("m-2x4", "m-2x8", "m-4x8", "m-4x16", "m-8x32", "m-16x64")
    assert not outcome.placed and not outcome.errors
    demands = {each.key: each for each in claim.requirements}
    assert demands[names.INSTANCE_TYPE].values == set(claim.instance_types)
    assert demands[names.ZONE].values == {"a", "b", "c"}
    assert demands[names.NODE_POOL].values == {"default"}
    assert claim.requests == {"cpu": 1500, "memory": GIB, "pods": 1}


def test_many_small_pods_share_one_machine() -> None:
    scene = Scene()
    outcome = scene.solve(*scene.pods(7))
    assert launched(outcome) == ["m-8x32"]
    assert len(outcome.claims[0].pods) == 7


def test_pods_go_where_there_is_room_before_anything_is_launched() -> None:
    scene = Scene()
    there, coming = scene.node(offering(2, 4)), scene.node(offering(2, 4), ready=False)
    outcome = scene.solve(*scene.pods(5))
    assert sorted(outcome.placed.values()) == [there] * 2 + [coming] * 2
    assert launched(outcome) == ["m-1x2"]


def test_a_node_that_starts_counts_without_the_taints_of_its_start() -> None:
    scene = Scene()
    name = scene.node(offering(2, 4), ready=False)
    node = core_v1.Node(
        metadata=meta_v1.ObjectMeta(name=name, labels={names.HOSTNAME: name}),
        spec=core_v1.NodeSpec(
            taints=[
                core_v1.Taint(key="karpenter.sh/unregistered", effect="NoExecute"),
                core_v1.Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule"),
            ]
        ),
        status=core_v1.NodeStatus(allocatable={"cpu": "0"}),
    )
    scene.snapshot.set_node(node)
    scene.states[name] = scene.states[name].__class__(name, node, scene.states[name].claim, offering(2, 4))
    assert set(scene.solve(*scene.pods(2)).placed.values()) == {name}
    assert scene.snapshot.record(name).node is node  # type: ignore[union-attr]  # all was undone


def test_marked_nodes_are_no_room() -> None:
    scene = Scene()
    name = scene.node(offering(4, 8))
    state = scene.states[name]
    scene.states[name] = state.__class__(name, state.node, state.claim, state.offering, (), True)
    outcome = scene.solve(scene.pod("web"))
    assert not outcome.placed and launched(outcome) == ["m-1x2"]


def test_what_would_move_when_nodes_go() -> None:
    scene = Scene()
    first, second = scene.node(offering(4, 8)), scene.node(offering(4, 8))
    scene.pods(3, node=first)
    scene.pods(2, node=second)
    outcome = scene.solve(without={second})
    assert sorted(outcome.placed.values()) == [first] and launched(outcome) == ["m-1x2"]
    both = scene.solve(without={first, second})
    assert not both.placed and launched(both) == ["m-8x32"]
    assert both.price == offering(8, 32).price


@pytest.mark.parametrize(
    ("demands", "kind", "zone"),
    [
        pytest.param([], names.SPOT, "a", id="free"),
        pytest.param([ON_DEMAND], names.ON_DEMAND, "a", id="on-demand"),
        pytest.param([demand(names.ZONE, "In", "c", "b")], names.SPOT, "b", id="zone"),
        pytest.param([demand(names.ZONE, "NotIn", "a")], names.SPOT, "b", id="not-in"),
        pytest.param([demand(names.CAPACITY_TYPE, "Exists")], names.SPOT, "a", id="exists"),
        pytest.param([demand("failure-domain.beta.kubernetes.io/zone", "In", "c")], names.SPOT, "c", id="old-name"),
    ],
)
def test_requirements_of_a_pool(demands: list[Requirement], kind: str, zone: str) -> None:
    scene = Scene(Pool("default", node_class="real", requirements=tuple(demands)))
    (claim,) = scene.solve(scene.pod("web")).claims
    assert claim.offerings[0].key == ("m-1x2", zone, kind)
    assert all(each.zone in ("b", "c") for each in claim.offerings) or zone == "a"


def test_pools_by_weight_then_the_next_one_that_fits() -> None:
    small = Pool("small", weight=50, node_class="real", requirements=(demand(names.INSTANCE_TYPE, "In", "m-1x2"),))
    scene = Scene(Pool("rest", node_class="real"), small)
    for cpu, pool, kind in (("500m", "small", "m-1x2"), ("3", "rest", "m-4x8")):
        (claim,) = scene.solve(scene.pod(f"web-{cpu}", cpu)).claims
        assert (claim.pool.name, claim.instance_types[0]) == (pool, kind)


def test_a_pool_that_is_not_ready_or_goes_launches_nothing() -> None:
    scene = Scene(Pool("one", node_class="real", not_ready="NodeClass not found"), Pool("two", deleting=True))
    outcome = scene.solve(scene.pod("web"))
    assert outcome.errors == {"web": "no nodepools found"}


def test_limits_bound_what_may_come_of_all_claims_together() -> None:
    scene = Scene(Pool("default", node_class="real", requirements=(ON_DEMAND,), limits={"cpu": 6000}))
    scene.node(offering(2, 4))
    outcome = scene.solve(*scene.pods(10))
    assert len(outcome.placed) == 2
    most = sum(max(each.capacity["cpu"] for each in claim.offerings) for claim in outcome.claims)
    assert most <= 4000 and sum(len(each.pods) for each in outcome.claims) == 4
    assert set(outcome.errors.values()) == {'all available instance types exceed limits for nodepool: "default"'}


def test_a_limit_of_nodes() -> None:
    scene = Scene(Pool("default", node_class="real", limits={NODES: 2}))
    scene.node(offering(1, 2))
    outcome = scene.solve(*scene.pods(4, affinity=apart(names.HOSTNAME)))
    assert len(outcome.placed) == 1 and len(outcome.claims) == 1 and len(outcome.errors) == 2


def test_taints_of_the_pool() -> None:
    pool = Pool("gpu", node_class="real", taints=(core_v1.Taint(key="gpu", value="yes", effect="NoSchedule"),))
    scene = Scene(pool)
    refused = scene.solve(scene.pod("web"))
    why = 'incompatible with nodepool "gpu", did not tolerate taint (taint=gpu=yes:NoSchedule)'
    assert refused.errors == {"web": why} and refused.refusals["web"]["gpu"].startswith("did not tolerate")
    assert scene.solve(scene.pod("job", tolerations=[tolerate("gpu", "Exists")])).claims


def test_startup_taints_need_not_be_tolerated() -> None:
    taint = core_v1.Taint(key="cni", effect="NoSchedule")
    scene = Scene(Pool("default", node_class="real", startup_taints=(taint,)))
    assert scene.solve(scene.pod("web")).claims


def test_zones_are_balanced() -> None:
    scene = Scene()
    outcome = scene.solve(*scene.pods(3, topologySpreadConstraints=[spread(names.ZONE)]))
    assert sorted(each.offerings[0].zone for each in outcome.claims) == ["a", "b", "c"]
    assert all({one.zone for one in each.offerings} == {each.offerings[0].zone} for each in outcome.claims)


def test_pods_that_cannot_be_together_get_nodes_of_their_own() -> None:
    scene = Scene()
    outcome = scene.solve(*scene.pods(4, affinity=apart(names.HOSTNAME)))
    assert launched(outcome) == ["m-1x2"] * 4


def test_a_zone_of_its_own_for_each_pod_until_zones_run_out() -> None:
    scene = Scene()
    outcome = scene.solve(*scene.pods(4, affinity=apart(names.ZONE)))
    assert sorted(each.offerings[0].zone for each in outcome.claims) == ["a", "b", "c"]
    assert len(outcome.errors) == 1


def test_pods_that_belong_together_share_a_node() -> None:
    scene = Scene()
    outcome = scene.solve(*scene.pods(4, "2", affinity=together(names.HOSTNAME)))
    assert launched(outcome) == ["m-8x32"]


def test_host_ports_clash() -> None:
    scene = Scene()
    containers = [container(requests={"cpu": "100m"}, ports=[("TCP", "", 8080)])]
    pods = [scene.pod(f"port-{number}") for number in range(2)]
    for info in pods:
        info.pod.spec.containers = containers  # type: ignore[union-attr]
    again = [type(info)(info.pod) for info in pods]
    assert len(scene.solve(*again).claims) == 2


def test_a_selector_narrows_what_is_launched_and_joins_a_claim_that_is_planned() -> None:
    scene = Scene()
    pods = [scene.pod("any", "1"), scene.pod("here", "500m", nodeSelector={names.ZONE: "c"})]
    (claim,) = scene.solve(*pods).claims
    assert len(claim.pods) == 2 and {each.zone for each in claim.offerings} == {"c"}


def test_alternatives_and_wishes_of_affinity() -> None:
    scene = Scene(Pool("default", node_class="real"))
    wanted = affinity(
        required=[term(expression(names.ZONE, "In", "b")), term(expression(names.ZONE, "In", "c"))],
        preferred=[
            (10, term(expression(names.CAPACITY_TYPE, "In", "on-demand"))),
            (1, term(expression("no", "Exists"))),
        ],
    )
    (claim,) = scene.solve(scene.pod("web", affinity=wanted)).claims
    assert {each.zone for each in claim.offerings} == {"b", "c"}
    assert {each.capacity_type for each in claim.offerings} == {names.ON_DEMAND}


def test_labels_that_the_pool_leaves_open_are_the_pods_choice() -> None:
    teams = demand("team", "In", "red", "blue")
    scene = Scene(Pool("default", node_class="real", requirements=(teams,), labels={"tier": "web"}))
    outcome = scene.solve(
        scene.pod("red", nodeSelector={"team": "red"}),
        scene.pod("blue", nodeSelector={"team": "blue"}),
        scene.pod("green", nodeSelector={"team": "green"}),
        scene.pod("tier", nodeSelector={"tier": "web"}),
    )
    assert sorted(each.labels["team"] for each in outcome.claims) == ["blue", "red"]
    assert all(each.labels["tier"] == "web" for each in outcome.claims)
    assert "key team, team In ['green'] not in team In ['blue', 'red']" in outcome.errors["green"]


@pytest.mark.parametrize(
    "demands",
    [
        [demand("team", "Exists")],
        [demand("team", "Gt", "3")],
        [demand("team", "Lt", "3")],
        [demand("team", "Lt", "-3")],
        [demand("team", "Gt", "3"), demand("team", "NotIn", "4", "5")],
        [demand("team", "NotIn", "red")],
        [demand("team", "Exists"), demand("team", "NotIn", "0", "1")],
        [demand("team", "In", "red", "blue"), demand("team", "NotIn", "blue")],
        [demand("team", "DoesNotExist")],
    ],
)
def test_nobody_has_to_ask_for_the_label_that_a_pool_demands(demands: list[Requirement]) -> None:
    """A node without it would count as drifted at once, and so would every one that replaces it."""
    pool = Pool("default", node_class="real", requirements=tuple(demands))
    outcome = Scene(pool).solve(Scene(pool).pod("a"))
    (claim,) = outcome.claims
    assert all(each.allows(claim.labels.get("team")) for each in demands)
    assert all(each.allows(claim.labels.get(each.key)) for each in claim.requirements if each.key == "team")


@pytest.mark.parametrize(
    ("demands", "labels"),
    [
        pytest.param([demand("team", "In", "red"), demand("team", "In", "blue")], {}, id="no-value-is-left"),
        pytest.param([demand("team", "Gt", "5"), demand("team", "Lt", "3")], {}, id="no-number-is-left"),
        pytest.param([demand("team", "In", "red")], {"team": "blue"}, id="its-own-label-is-refused"),
        pytest.param([demand("team", "DoesNotExist")], {"team": "blue"}, id="its-own-label-must-not-be"),
    ],
)
def test_a_pool_that_contradicts_itself_launches_nothing(demands: list[Requirement], labels: dict[str, str]) -> None:
    """Every node of it would have drifted from the start."""
    pool = Pool("default", node_class="real", requirements=tuple(demands), labels=labels)
    scene = Scene(pool)
    outcome = scene.solve(scene.pod("a"))
    assert not outcome.claims
    assert "no instance type met all requirements" in outcome.errors["a"]


def test_a_label_that_only_some_offerings_bear_is_demanded_of_all() -> None:
    marked = offering(2, 4)
    marked = replace(marked, labels={**marked.labels, "disk": "fast"})
    pool = Pool("default", node_class="real", requirements=(demand("disk", "Exists"),))
    scene = Scene(pool, offers=[offering(1, 2), marked])
    (claim,) = scene.solve(scene.pod("a", "100m")).claims
    assert claim.offerings == (marked,)


@pytest.mark.parametrize(
    "key",
    ["node-role.kubernetes.io/control-plane", "kubernetes.io/hostname", "example.k8s.io/a", "karpenter.sh/initialized"],
)
def test_what_a_claim_may_not_demand_is_left_to_the_filters(key: str) -> None:
    """The API server would refuse the claim, and with it the room of every other pod on it."""
    scene = Scene()
    keeps_off = affinity(required=[term(expression(key, "NotIn", "x"), expression("team", "DoesNotExist"))])
    (claim,) = scene.solve(scene.pod("a", affinity=keeps_off), scene.pod("b")).claims
    assert len(claim.pods) == 2
    told = {each.key for each in claim.requirements}
    assert "team" in told and not any(map(names.restricted, told))


def test_daemons_take_their_share() -> None:
    scene = Scene()
    spec = core_v1.PodSpec(containers=[container(requests={"cpu": "500m"})])
    template = core_v1.PodTemplateSpec(metadata=meta_v1.ObjectMeta(labels={"app": "log"}), spec=spec)
    scene.daemons = [
        apps_v1.DaemonSet(
            metadata=meta_v1.ObjectMeta(name="log", namespace="kube-system", uid="log"),
            spec=apps_v1.DaemonSetSpec(selector=meta_v1.LabelSelector(matchLabels={"app": "log"}), template=template),
        )
    ]
    (claim,) = scene.solve(scene.pod("web", "1")).claims
    assert claim.instance_types[0] == "m-2x4" and claim.requests["cpu"] == 1500 and claim.requests["pods"] == 2


def test_a_volume_decides_about_the_zone() -> None:
    scene = Scene()
    volume = core_v1.PersistentVolume(
        metadata=meta_v1.ObjectMeta(name="disk"),
        spec=core_v1.PersistentVolumeSpec(
            accessModes=["ReadWriteOnce"],
            nodeAffinity=core_v1.VolumeNodeAffinity(
                required=core_v1.NodeSelector(nodeSelectorTerms=[term(expression(names.ZONE, "In", "c"))])
            ),
            claimRef=core_v1.ObjectReference(namespace="default", name="data"),
        ),
    )
    claim = core_v1.PersistentVolumeClaim(
        metadata=meta_v1.ObjectMeta(
            name="data", namespace="default", annotations={"pv.kubernetes.io/bind-completed": "yes"}
        ),
        spec=core_v1.PersistentVolumeClaimSpec(volumeName="disk"),
        status=core_v1.PersistentVolumeClaimStatus(phase="Bound"),
    )
    scene.snapshot.volumes.set_volume("disk", volume)
    scene.snapshot.volumes.set_claim(("default", "data"), claim)
    source = core_v1.PersistentVolumeClaimVolumeSource(claimName="data")
    pods = [scene.pod("db", volumes=[core_v1.Volume(name="data", persistentVolumeClaim=source)]), scene.pod("web")]
    (made,) = scene.solve(*pods).claims
    assert {each.zone for each in made.offerings} == {"c"} and len(made.pods) == 2
    lost = scene.pod(
        "lost", volumes=[core_v1.Volume(name="data", persistentVolumeClaim=type(source)(claimName="none"))]
    )
    assert "none" in scene.solve(lost).errors["lost"]


def test_flexibility_that_a_pool_insists_on() -> None:
    least = demand(names.INSTANCE_TYPE, "Exists", least=3)
    scene = Scene(Pool("default", node_class="real", requirements=(least, ON_DEMAND)))
    assert scene.solve(scene.pod("web", "4")).claims
    outcome = scene.solve(scene.pod("web", "6"))
    assert (
        "minValues requirement is not met for label(s) (label(s)=[node.kubernetes.io/instance-type])"
        in (outcome.errors["web"])
    )


@pytest.mark.parametrize(
    ("cpu", "rest", "why"),
    [
        pytest.param("100", {}, "(no instance type has enough resources)", id="too-large"),
        pytest.param("2M", {}, "m vs M typo?", id="absurd"),
        pytest.param("1", {"nodeSelector": {names.ZONE: "moon"}}, "not in topology.kubernetes.io/zone In", id="zone"),
        pytest.param("1", {"nodeSelector": {"who": "me"}}, 'label "who" does not have known values', id="unknown"),
    ],
)
def test_what_cannot_be_had_is_told(cpu: str, rest: dict[str, Any], why: str) -> None:
    scene = Scene()
    outcome = scene.solve(scene.pod("web", cpu, **rest))
    assert not outcome.claims and why in outcome.errors["web"]


def test_nothing_offered() -> None:
    scene = Scene(offers=())
    assert "available offering" in scene.solve(scene.pod("web")).errors["web"]


pods_strategy = st.lists(
    st.tuples(
        st.sampled_from(["100m", "500m", "1", "3", "7", "20"]),
        st.sampled_from(["128Mi", "1Gi", "9Gi", "40Gi"]),
        st.sampled_from(["", "a", "b"]),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(pods_strategy, st.integers(0, 3), st.none() | st.integers(1, 40), st.none() | st.integers(0, 3))
def test_what_holds_of_every_decision(
    wanted: list[tuple[str, str, str, bool]], nodes: int, cores: int | None, most: int | None
) -> None:
    limits = {**({"cpu": cores * 1000} if cores is not None else {}), **({NODES: most} if most is not None else {})}
    scene = Scene(Pool("default", node_class="real", limits=limits), offers=offerings(zones=("a", "b")))
    for number in range(nodes):
        scene.node(offering(2, 4, "ab"[number % 2]), ready=number != 1)
    pods = [
        scene.pod(
            f"p{number}",
            cpu,
            memory,
            nodeSelector={names.ZONE: zone} if zone else None,
            affinity=apart(names.HOSTNAME) if alone else None,
        )
        for number, (cpu, memory, zone, alone) in enumerate(wanted)
    ]
    outcome = scene.solve(*pods)
    # Every pod has exactly one answer.
    answered = [*outcome.placed, *(info.uid for each in outcome.claims for info in each.pods), *outcome.errors]
    assert sorted(answered) == sorted(info.uid for info in pods)
    # Never above the limits, whatever is launched.
    if outcome.claims:
        held = nodes * 2000 + sum(max(one.capacity["cpu"] for one in each.offerings) for each in outcome.claims)
        assert cores is None or held <= cores * 1000
        assert most is None or nodes + len(outcome.claims) <= most
    for claim in outcome.claims:
        total = sum(info.requests["cpu"] for info in claim.pods), sum(info.requests["memory"] for info in claim.pods)
        zones = {info.spec.nodeSelector[names.ZONE] for info in claim.pods if info.spec.nodeSelector}

        def holds(cpu: int, memory: int, zone: str) -> bool:
            return cpu >= total[0] and memory >= total[1] and zones <= {zone}  # noqa: B023

        # All that is kept holds the pods, and the first is the cheapest of all that are offered.
        assert all(holds(one.allocatable["cpu"], one.allocatable["memory"], one.zone) for one in claim.offerings)
        cheapest = min(
            one.price for one in scene.offers if holds(one.allocatable["cpu"], one.allocatable["memory"], one.zone)
        )
        assert claim.price == cheapest
    # No new node for a pod that one of the nodes would have held.
    free = {name: [2000, 4 * GIB] for name in scene.states}
    for info in pods:
        if info.uid in outcome.placed:
            free[outcome.placed[info.uid]][0] -= info.requests["cpu"]
            free[outcome.placed[info.uid]][1] -= info.requests["memory"]
    assert all(amount >= 0 for each in free.values() for amount in each)
    alone = set(outcome.placed.values())
    for claim in outcome.claims:
        for info in claim.pods:
            selector = info.spec.nodeSelector or {}
            for name, (cpu, memory) in free.items():
                zone = scene.states[name].offering.zone  # type: ignore[union-attr]
                blocked = name in alone  # somebody there may want to be alone
                assert (
                    blocked
                    or cpu < info.requests["cpu"]
                    or memory < info.requests["memory"]
                    or selector.get(names.ZONE, zone) != zone
                )
    # The cluster is as it was.
    assert scene.snapshot.node_count == sum(each.node is not None for each in scene.states.values())
