"""Hypothesis strategies for small but varied clusters."""

from __future__ import annotations

from hypothesis import strategies as st

from api.models import core_v1
from tests.unit.scheduler.objects import affinity, container, expression, node, pod, term, tolerate

KEYS = ("zone", "disk", "rank")
VALUES = ("a", "b", "1", "7", "-3", "")
TAINT_KEYS = ("dedicated", "spot")
EFFECTS = ("NoSchedule", "NoExecute", "PreferNoSchedule")
IMAGES = {"busybox:latest": 4_000_000, "nginx:1.27": 190_000_000, "reg:5000/app:latest": 1_700_000_000}
GPU = "example-com/gpu"

cpus = st.sampled_from(["0", "1m", "100m", "250m", "0.5", "1", "1500m", "3", "9"])
memories = st.sampled_from(["0", "64Mi", "100M", "1Gi", "1.5Gi", "3Gi", "123456789", "20Gi"])
resource_lists = st.fixed_dictionaries(
    {}, optional={"cpu": cpus, "memory": memories, "ephemeral-storage": memories, GPU: st.sampled_from(["0", "1", "2"])}
)
labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=3)
taints = st.lists(
    st.tuples(st.sampled_from(TAINT_KEYS), st.sampled_from(["", "x"]), st.sampled_from(EFFECTS)), max_size=2
)
ports = st.lists(
    st.tuples(st.sampled_from(["TCP", "UDP"]), st.sampled_from(["", "10.0.0.1", "0.0.0.0"]), st.sampled_from([80, 81])),
    max_size=2,
)


@st.composite
def nodes(draw: st.DrawFn, name: str) -> core_v1.Node:
    return node(
        name,
        labels=draw(labels),
        taints=draw(st.one_of(st.just([]), taints)),
        unschedulable=draw(st.integers(0, 6)) == 0,
        images={image: IMAGES[image] for image in draw(st.sets(st.sampled_from(sorted(IMAGES)), max_size=2))},
        cpu=draw(st.sampled_from(["0", "2", "4", "3900m"])),
        memory=draw(st.sampled_from(["0", "2Gi", "4Gi", "3999999999"])),
        pods=draw(st.sampled_from(["1", "3", "110"])),
        example_com__gpu=draw(st.sampled_from(["0", "2"])),
    )


@st.composite
def expressions(draw: st.DrawFn) -> core_v1.NodeSelectorRequirement:
    operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]))
    values: list[str] = []
    if operator in ("In", "NotIn"):
        values = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=2))
    elif operator in ("Gt", "Lt"):
        values = [draw(st.sampled_from(["0", "5", "-10"]))]
    return expression(draw(st.sampled_from((*KEYS, "absent"))), operator, *values)


terms = st.lists(expressions(), max_size=2).map(lambda each: term(*each))
affinities = st.builds(
    affinity,
    required=st.one_of(st.none(), st.lists(terms, max_size=2)),
    preferred=st.lists(st.tuples(st.integers(1, 100), terms), max_size=2),
)
tolerations = st.lists(
    st.builds(
        tolerate,
        key=st.sampled_from(("", *TAINT_KEYS, "node.kubernetes.io/unschedulable")),
        operator=st.sampled_from(["Exists", "Equal"]),
        value=st.sampled_from(["", "x"]),
        effect=st.sampled_from(("", *EFFECTS)),
    ),
    max_size=2,
)


@st.composite
def pods(draw: st.DrawFn, name: str) -> core_v1.Pod:
    def containers(kind: str, most: int, sidecars: bool) -> list[core_v1.Container]:
        return [
            container(
                f"{kind}{index}",
                draw(resource_lists),
                image=draw(st.sampled_from([image.removesuffix(":latest") for image in sorted(IMAGES)])),
                restart="Always" if sidecars and draw(st.booleans()) else None,
                ports=draw(ports) if kind == "app" else (),
            )
            for index in range(draw(st.integers(0 if sidecars else 1, most)))
        ]

    return pod(
        name,
        containers=containers("app", 2, False),
        initContainers=containers("init", 2, True) or None,
        overhead=draw(st.one_of(st.none(), st.just({"cpu": "10m", "memory": "5Mi"}))),
        nodeSelector=draw(st.one_of(st.none(), labels)) or None,
        affinity=draw(st.one_of(st.none(), affinities)),
        tolerations=draw(tolerations) or None,
    )
