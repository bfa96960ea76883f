"""Clusters of different character, as objects: what runs when the recording begins, and pods that arrive after.

The machines of `borg-2011` and `borg-2019` are in the proportions published of Google's cluster traces, those of
`openb-gpu` as in the description of Alibaba's trace cluster-trace-gpu-v2023; nothing of the traces themselves is used.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from tests.placement.parts import (
    HOSTNAME,
    PULLED,
    ZONE,
    Object,
    claim,
    claiming,
    expression,
    namespace,
    near,
    node,
    on_nodes,
    pod,
    priority,
    selecting,
    service,
    spec,
    spread,
    storage_class,
    tolerating,
    volume,
    workload,
    zoned,
)


class Shape(NamedTuple):
    """`running` is created while a scheduler works, `arriving` once it has stopped."""

    running: list[Object]
    arriving: list[Object]


def one_node() -> Shape:
    """a single node, nearly full"""
    running = [node("only", "2", "4Gi", pods=20), workload("Deployment", "web", 14, spec("120m", "256Mi"))]
    return Shape(running, [pod("fits", spec("100m")), pod("big", spec("3")), pod("small", spec("0", "0"))])


def zones_even() -> Shape:
    """three zones alike; Services, and Deployments spread by default"""
    running = [*zoned(12, "abc"), service("web"), service("api")]
    running += [workload("Deployment", "web", 9, spec()), workload("Deployment", "api", 7, spec("500m", "1Gi"))]
    return Shape(running, [pod(f"web-{n}", labels={"app": "web"}) for n in range(4)] + [pod("alone")])


def zones_uneven() -> Shape:
    """zones of 2, 5 and 1 nodes, and one node outside all zones"""
    running = [*zoned(2, "a", "a"), *zoned(5, "b", "b"), *zoned(1, "c", "c"), node("nowhere"), service("web")]
    running.append(workload("Deployment", "web", 11, spec("200m")))
    running.append(workload("StatefulSet", "db", 3, spec("1", "2Gi"), serviceName="db"))
    return Shape(running, [pod(f"w{n}", spec("300m"), labels={"app": "web"}) for n in range(4)])


def mixed_sizes() -> Shape:
    """nodes from 2 to 96 CPUs, pods from 10 milli-CPUs to 12 CPUs"""
    sizes = [("2", "4Gi"), ("4", "32Gi"), ("8", "16Gi"), ("16", "64Gi"), ("32", "128Gi"), ("96", "192Gi")]
    running = [node(f"m{n}", *sizes[n % len(sizes)]) for n in range(14)]
    rng = Random(1)
    asked = [
        (f"{rng.choice([10, 100, 250, 1000, 3500, 12000])}m", f"{rng.choice([16, 200, 1024, 6000])}Mi")
        for _ in range(60)
    ]
    made = [pod(f"p{n}", spec(*each)) for n, each in enumerate(asked)]
    return Shape([*running, *made[:48]], made[48:])


def taints() -> Shape:
    """pools that are dedicated, spot nodes to be avoided, a node being emptied"""
    running = [*zoned(4, "ab", "plain"), *zoned(3, "ab", "spot", taints=["spot=true:PreferNoSchedule"])]
    running += [node(f"gold{n}", taints=["dedicated=gold:NoSchedule"], labels={"pool": "gold"}) for n in range(3)]
    running += [node("leaving", taints=["maintenance=:NoExecute", "spot=true:PreferNoSchedule"])]
    gold = {"key": "dedicated", "operator": "Equal", "value": "gold", "effect": "NoSchedule"}
    running.append(workload("Deployment", "gold", 5, spec(tolerations=[gold], nodeSelector={"pool": "gold"})))
    running.append(workload("Deployment", "spotty", 6, spec(tolerations=[tolerating("spot")])))
    running.append(workload("Deployment", "plain", 8, spec("400m")))
    arriving = [
        pod("any", spec(tolerations=[{"operator": "Exists"}])),
        pod("gold", spec(tolerations=[gold])),
        pod("none"),
    ]
    return Shape(running, [*arriving, pod("stays", spec(tolerations=[tolerating("maintenance", "NoExecute")]))])


def hard_spread() -> Shape:
    """constraints that must hold: skew, minDomains, matchLabelKeys, tainted and foreign nodes counted or not"""
    running = [*zoned(9, "abc"), *zoned(3, "d", "d", taints=["closed=:NoSchedule"])]
    running.append(
        workload(
            "Deployment", "even", 8, spec(topologySpreadConstraints=[spread(ZONE, 1, "even", nodeTaintsPolicy="Honor")])
        )
    )
    both = [spread(ZONE, 2, "both"), spread(HOSTNAME, 1, "both", hard=False)]
    running.append(workload("Deployment", "both", 7, spec("250m", topologySpreadConstraints=both)))
    many = [spread(ZONE, 1, "many", minDomains=4, matchLabelKeys=["pod-template-hash"])]
    running.append(workload("Deployment", "many", 6, spec(topologySpreadConstraints=many)))
    ignoring = spec(
        topologySpreadConstraints=[spread(ZONE, 1, "even", nodeAffinityPolicy="Ignore")], nodeSelector={ZONE: "a"}
    )
    return Shape(
        running,
        [
            pod("e1", ignoring, labels={"app": "even"}),
            pod("e2", spec(topologySpreadConstraints=[spread(HOSTNAME, 1, "both")]), labels={"app": "both"}),
            pod("e3", spec(topologySpreadConstraints=[spread("rack", 1, "x")])),
        ],
    )


def apart() -> Shape:
    """pods that keep away from each other, by node and by zone, required and preferred"""
    running = [*zoned(8, "abcd")]
    running.append(
        workload(
            "StatefulSet",
            "quorum",
            5,
            spec(affinity=near(HOSTNAME, apart=True, app="quorum")),
            serviceName="q",
            podManagementPolicy="Parallel",
        )
    )
    running.append(workload("Deployment", "zonal", 5, spec(affinity=near(ZONE, apart=True, app="zonal"))))
    running.append(workload("Deployment", "shy", 6, spec(affinity=near(HOSTNAME, weight=80, apart=True, app="shy"))))
    shunned = spec(affinity=near(ZONE, apart=True, app="shy"))
    return Shape(
        running,
        [
            pod("q", running[-3]["spec"]["template"]["spec"], labels={"app": "quorum"}),
            pod("s", spec(), labels={"app": "zonal"}),
            pod("t", shunned),
        ],
    )


def together() -> Shape:
    """pods that want to be near others, also of other namespaces and teams"""
    running = [namespace("team-x", team="x"), namespace("team-y", team="y"), *zoned(9, "abc")]
    running.append(workload("Deployment", "cache", 3, spec("500m", "2Gi"), namespace="team-x"))
    running.append(workload("Deployment", "cache", 2, spec("500m", "2Gi"), namespace="team-y"))
    term = {"topologyKey": HOSTNAME, "labelSelector": selecting(app="cache"), "namespaceSelector": selecting(team="x")}
    beside = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    running.append(workload("Deployment", "web", 6, spec(affinity=beside), namespace="team-x"))
    running.append(
        workload("Deployment", "soft", 6, spec(affinity=near(ZONE, weight=60, app="soft")), namespace="team-y")
    )
    running.append(workload("Deployment", "first", 3, spec(affinity=near(ZONE, app="first"))))
    everywhere = {"topologyKey": ZONE, "labelSelector": selecting(app="cache"), "namespaces": ["team-y"]}
    wanted = {
        "podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": everywhere}]
        }
    }
    return Shape(
        running,
        [
            pod("w", spec(affinity=beside), namespace="team-x"),
            pod("y", spec(affinity=wanted)),
            pod("none", spec(affinity=near(ZONE, app="nobody"))),
        ],
    )


def node_affinity() -> Shape:
    """every operator of node affinity, required and preferred"""
    running = [
        node(
            f"n{n}",
            labels={"generation": str(n), "disk": "ssd" if n % 3 else "hdd", **({"gpu": ""} if n % 4 == 0 else {})},
        )
        for n in range(10)
    ]
    cases = [
        on_nodes([expression("disk", "In", "ssd")]),
        on_nodes([expression("disk", "NotIn", "ssd")]),
        on_nodes([expression("gpu", "Exists")]),
        on_nodes([expression("gpu", "DoesNotExist"), expression("generation", "Gt", "4")]),
        on_nodes([expression("generation", "Lt", "2")]),
        on_nodes([], [(80, expression("disk", "In", "hdd")), (20, expression("gpu", "Exists"))]),
        on_nodes(
            [expression("disk", "In", "ssd")],
            [(1, expression("generation", "Gt", "7")), (100, expression("generation", "Lt", "6"))],
        ),
    ]
    running += [workload("Deployment", f"case-{n}", 3, spec(affinity=each)) for n, each in enumerate(cases)]
    return Shape(running, [pod(f"again-{n}", spec("1", affinity=each)) for n, each in enumerate(cases)])


def images() -> Shape:
    """large images that only some nodes hold"""
    large = {"ml/train:7": 900_000_000, "ml/serve:2": 350_000_000}
    held = [PULLED, {**PULLED, **large}, {"ml/train:7": 900_000_000}, {}]
    running = [node(f"n{n}", "16", "32Gi", images=held[n % 4]) for n in range(10)]
    wanted = ["ml/train:7", "ml/serve:2", "busybox", "nginx:1.27", "never/seen:1"]
    running += [workload("Deployment", f"w{n}", 3, spec(image=each)) for n, each in enumerate(wanted)]
    both = spec(image="ml/train:7")
    both["initContainers"] = [{"name": "fetch", "image": "ml/serve:2"}]
    return Shape(
        running, [*(pod(f"p{n}", spec("50m", image=each)) for n, each in enumerate(wanted)), pod("both", both)]
    )


def openb_gpu() -> Shape:
    """machines and tasks like those of Alibaba's trace cluster-trace-gpu-v2023: several models of GPUs"""
    kinds = [
        ("32", "256Gi", 0, ""),
        ("128", "768Gi", 8, "G3"),
        ("96", "768Gi", 8, "V100M32"),
        ("96", "384Gi", 2, "T4"),
        ("64", "256Gi", 8, "V100M16"),
    ]
    running = []
    for n in range(20):
        cpu, memory, gpus, model = kinds[n % len(kinds)]
        offered = {"example.com/gpu": str(gpus)} if gpus else {}
        running.append(node(f"openb-{n:04}", cpu, memory, labels={"model": model} if model else {}, offered=offered))
    rng = Random(2023)
    tasks = [
        ("88", "320Gi", 8, ""),
        ("4", "15258Mi", 1, ""),
        ("16", "32Gi", 1, "V100M16|V100M32"),
        ("8", "16Gi", 0, ""),
        ("32", "64Gi", 4, ""),
        ("6", "24Gi", 2, "T4"),
    ]
    made = []
    for n in range(50):
        cpu, memory, gpus, models = tasks[rng.choices(range(6), [2, 10, 6, 9, 3, 4])[0]]
        wanted = on_nodes([expression("model", "In", *models.split("|"))]) if models else None
        more = {"example.com/gpu": str(gpus)} if gpus else {}
        made.append(pod(f"openb-pod-{n:04}", spec(cpu, memory, more=more, affinity=wanted)))
    return Shape([*running, *made[:40]], made[40:])


def _borg(machines: list[tuple[float, float, float]], seed: int) -> Shape:
    """Machines in the given proportions (share, CPU, memory; 1 is 64 CPUs and 256 Gi), tasks of four priority tiers."""
    rng, count = Random(seed), 24
    running: list[Object] = [
        priority("free", 0),
        priority("batch", 110),
        priority("mid", 117),
        priority("production", 200),
    ]
    total = sum(share for share, _, _ in machines)
    for share, cpu, memory in machines:
        for _ in range(max(1, round(share / total * count))):
            name = f"m{len(running)}"
            running.append(
                node(
                    name,
                    f"{int(cpu * 64000)}m",
                    f"{int(memory * 256 * 1024)}Mi",
                    labels={ZONE: f"cell-{len(running) % 3}"},
                )
            )
    made = []
    for n in range(110):
        tier = rng.choices(["free", "batch", "mid", "production"], [20, 40, 10, 30])[0]
        cpu = min(20.0, rng.paretovariate(0.9) * 0.2)  # a few tasks ask for most
        asked = spec(
            f"{int(cpu * 1000)}m", f"{int(min(60.0, rng.paretovariate(0.9) * 0.5) * 1024)}Mi", priorityClassName=tier
        )
        made.append(pod(f"task-{n}", asked, labels={"job": f"j{rng.randrange(12)}"}))
    return Shape([*running, *made[:96]], made[96:])


def borg_2011() -> Shape:
    """machines in the proportions of Google's trace of 2011: half CPU and memory 53 %, half and a quarter 31 %, …"""
    return _borg(
        [(53.5, 0.5, 0.5), (30.7, 0.5, 0.25), (8.0, 0.5, 0.75), (6.3, 1, 1), (1.0, 0.25, 0.25), (0.4, 0.5, 0.12)], 2011
    )


def borg_2019() -> Shape:
    """machines in the proportions of the most frequent kinds of Google's trace of 2019"""
    return _borg([(23.3, 1, 0.5), (19.3, 0.5918, 0.3335), (6.8, 0.3867, 0.3335), (5, 0.7088, 0.6669), (3, 1, 1)], 2019)


def local_volumes() -> Shape:
    """local disks of several sizes, given away when their pod is placed"""
    running = [*zoned(5, "ab"), storage_class("local", "kubernetes.io/no-provisioner")]
    for n in range(5):
        for at, size in enumerate(["1Gi", "5Gi"][: 1 + n % 2]):
            running.append(
                volume(
                    f"disk-{n}-{at}",
                    size,
                    "local",
                    {"local": {"path": f"/mnt/{at}"}},
                    where=expression(HOSTNAME, "In", f"n{n}"),
                )
            )
    running += [claim(f"c{n}", "1Gi" if n % 2 else "3Gi", "local") for n in range(7)]
    running += [pod(f"user-{n}", spec(volumes=claiming(f"c{n}"))) for n in range(2)]
    arriving = [pod(f"late-{n}", spec(volumes=claiming(f"c{n}"))) for n in range(2, 6)]
    return Shape(
        running,
        [*arriving, pod("two", spec(volumes=claiming("c5", "c6"))), pod("absent", spec(volumes=claiming("nothing")))],
    )


def attached_volumes() -> Shape:
    """zonal volumes of a driver that attaches two to a node, and claims that only one pod may use"""
    running = [*zoned(6, "ab"), storage_class("zonal", "disk.example.com", delayed=False)]
    for n in range(6):
        drivers = [{"name": "disk.example.com", "nodeID": f"n{n}", "allocatable": {"count": 2}}]
        running.append(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "CSINode",
                "metadata": {"name": f"n{n}"},
                "spec": {"drivers": drivers},
            }
        )
    for n in range(14):
        source = {"csi": {"driver": "disk.example.com", "volumeHandle": f"h{n}"}}
        where = expression(ZONE, "In", "ab"[n % 2]) if n % 3 else None
        labels = {} if n % 3 else {ZONE: "ab"[n % 2]}
        made = volume(f"v{n}", "10Gi", "zonal", source, where=where, claim=f"c{n}", **labels)
        mode = "ReadWriteOncePod" if n == 4 else "ReadWriteOnce"
        made["spec"]["accessModes"] = [mode]
        running += [made, claim(f"c{n}", "10Gi", "zonal", volume=f"v{n}", mode=mode)]
    running += [pod(f"user-{n}", spec(volumes=claiming(f"c{n}"))) for n in range(9)]
    arriving = [pod(f"late-{n}", spec(volumes=claiming(f"c{n}", f"c{n + 1}"))) for n in (9, 11)]
    return Shape(
        running,
        [*arriving, pod("again", spec(volumes=claiming("c4"))), pod("shares", spec(volumes=claiming("c1", "c2")))],
    )


def promises() -> Shape:
    """a cluster full of low priorities: pods of high priority were promised nodes, whose victims are still leaving"""
    running = [
        priority("low", 10),
        priority("high", 1000),
        priority("polite", 1000, preemptionPolicy="Never"),
        *zoned(6, "ab", cpu="2"),
    ]
    running += [pod(f"low-{n}", spec("900m", priorityClassName="low")) for n in range(12)]
    running += [pod(f"high-{n}", spec("1500m", priorityClassName="high")) for n in range(3)]
    arriving = [
        pod("polite", spec("800m", priorityClassName="polite")),
        pod("small", spec("100m", priorityClassName="low")),
    ]
    return Shape(running, [*arriving, pod("higher", spec("1900m", priorityClassName="high")), pod("tiny", spec("50m"))])


def host_ports() -> Shape:
    """pods that take ports of their node"""
    running = [*zoned(6, "ab")]
    running.append(workload("DaemonSet", "agent", 0, spec("50m", ports=[9100], hostNetwork=True)))
    running.append(workload("Deployment", "ingress", 3, spec(ports=[80, 443])))
    arriving = [pod(f"ingress-{n}", spec(ports=[443])) for n in range(4)]
    return Shape(running, [*arriving, pod("agent", spec(ports=[9100])), pod("other", spec(ports=[8080]))])


def daemons() -> Shape:
    """DaemonSets on part of the nodes, each pod made for its node"""
    running = [
        *zoned(8, "ab", labels={"role": "worker"}),
        node("master", taints=["node-role.kubernetes.io/control-plane=:NoSchedule"]),
    ]
    running.append(workload("DaemonSet", "logs", 0, spec("100m")))
    running.append(workload("DaemonSet", "cni", 0, spec("10m", tolerations=[{"operator": "Exists"}])))
    running.append(workload("DaemonSet", "zone-a", 0, spec("3500m", nodeSelector={ZONE: "a"})))
    running.append(workload("Deployment", "web", 10, spec("500m")))
    return Shape(running, [workload("DaemonSet", "late", 0, spec("300m", tolerations=[{"operator": "Exists"}]))])


def troubled() -> Shape:
    """nodes that are cordoned, under pressure, unreachable or without network"""
    running = [*zoned(4, "ab"), node("cordoned", unschedulable=True)]
    for name in ("memory-pressure", "disk-pressure", "network-unavailable", "unreachable"):
        running.append(node(name, taints=[f"node.kubernetes.io/{name}=:NoSchedule"]))
    running.append(workload("Deployment", "web", 8, spec()))
    hardy = [
        tolerating("node.kubernetes.io/unschedulable"),
        tolerating("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ]
    return Shape(running, [pod("plain"), pod("hardy", spec(tolerations=hardy)), pod("large", spec("3500m", "7Gi"))])


def composed() -> Shape:
    """pods with init containers, sidecars, overhead, requests of the whole pod, and containers that ask for nothing"""
    running = [*zoned(6, "ab", cpu="4", memory="6Gi")]
    waiting = spec("200m", "256Mi")
    waiting["initContainers"] = [
        {
            "name": "mesh",
            "image": "busybox",
            "restartPolicy": "Always",
            "resources": {"requests": {"cpu": "300m", "memory": "64Mi"}},
        },
        {"name": "load", "image": "busybox", "resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}}},
    ]
    silent = {"containers": [{"name": "a", "image": "busybox"}, {"name": "b", "image": "nginx:1.27"}]}
    whole = {
        "containers": [{"name": "a", "image": "busybox"}],
        "resources": {"requests": {"cpu": "700m", "memory": "512Mi"}},
    }
    kinds = {"waiting": waiting, "silent": silent, "whole": whole, "plain": spec("350m", "700Mi")}
    running += [workload("Deployment", name, 5, each) for name, each in kinds.items()]
    return Shape(running, [pod(f"late-{name}", each) for name, each in kinds.items()])


def crowded() -> Shape:
    """nodes that are full for one reason or another: CPU, memory, ephemeral storage, number of pods"""
    running = [node(f"cpu{n}", "1", "16Gi") for n in range(3)] + [node(f"memory{n}", "16", "1Gi") for n in range(3)]
    running += [node(f"few{n}", "16", "16Gi", pods=3) for n in range(3)]
    running += [workload("Deployment", "filler", 20, spec("300m", "300Mi"))]
    running += [workload("Deployment", "scratch", 4, spec("100m", "64Mi", more={"ephemeral-storage": "40Gi"}))]
    arriving = [
        pod("wide", spec("2", "2Gi")),
        pod("long", spec("100m", "12Gi")),
        pod("disk", spec(more={"ephemeral-storage": "90Gi"})),
    ]
    return Shape(running, [*arriving, pod("nowhere", spec("40", "100Gi"))])


SHAPES: dict[str, Callable[[], Shape]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        one_node,
        zones_even,
        zones_uneven,
        mixed_sizes,
        taints,
        hard_spread,
        apart,
        together,
        node_affinity,
        images,
        openb_gpu,
        borg_2011,
        borg_2019,
        local_volumes,
        attached_volumes,
        promises,
        host_ports,
        daemons,
        troubled,
        composed,
        crowded,
    )
}
