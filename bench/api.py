"""What requests over REST cost: creates, GETs, LISTs; memory before and after; and how little the number matters."""

from __future__ import annotations

from bench.harness import Figure, cluster, median, memory, say
from bench.load import Load, Target

ROUNDS, SECONDS = 3, 5.0
LISTED = 2_000
SIZES = (1_000, 10_000, 50_000)

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
CONFIG_MAP = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b-{name}"},"data":{"key":"value"}}'
POD = (
    '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p-{name}","labels":{"app":"web"}},'
    '"spec":{"containers":[{"name":"main","image":"registry.k8s.io/pause:3.10"}]}}'
)


def run() -> list[Figure]:
    """One cluster for the rates and the memory, another for the sizes."""
    return _rates() + _sizes()


def _rates() -> list[Figure]:
    runs: dict[str, list[Load]] = {"create": [], "pod": [], "get": [], "list": []}
    with cluster("bench-api", "--only", "apiserver") as made:
        target = Target(made)
        idle = memory(target.pid)
        say(f"api: idle, PSS {idle[0]:.0f}, RSS {idle[1]:.0f} MiB")
        made.kubectl("create", "namespace", "listed")
        for namespace in ("default", "listed"):
            made.kubectl("create", "serviceaccount", "default", "-n", namespace)
        made.kubectl("create", "configmap", "target", "--from-literal=key=value")
        listed = PODS.replace("default", "listed")
        target.fill(listed, POD, LISTED)
        for number in range(ROUNDS):
            runs["create"].append(target.post(CONFIG_MAPS, CONFIG_MAP, 32, SECONDS))
            runs["pod"].append(target.post(PODS, POD, 32, SECONDS))
            runs["get"].append(target.get(f"{CONFIG_MAPS}/target", 32, SECONDS))
            runs["list"].append(target.get(listed, 8, SECONDS))
            for name, done in runs.items():
                say(f"api: round {number + 1} of {ROUNDS}: {name} {done[-1]}")
            if not number:  # one run of each row: more rounds only hold more objects
                held, after = runs["create"][0].requests + runs["pod"][0].requests, memory(target.pid)
        size = median([run.received / run.rate for run in runs["list"]]) / 1e6
    rate = {name: f"{median([run.rate for run in done]):,.0f}/s" for name, done in runs.items()}
    return [
        Figure("create ConfigMap, 32 clients", rate["create"], "3,000/s", "1,514/s"),
        Figure("create Pod, 32 clients", rate["pod"], "2,000/s", "1,045/s"),
        Figure("GET ConfigMap, 32 clients", rate["get"], "12,000/s", "3,045/s"),
        Figure(f"LIST {LISTED:,} pods ({size:.1f} MB), 8 clients", rate["list"], "150/s", "30/s"),
        Figure(
            f"API server idle / after this load ({held:,} objects), RSS (PSS)",
            f"{idle[1]:.0f} ({idle[0]:.0f}) / {after[1]:.0f} ({after[0]:.0f}) MiB",
            "80 / 200 MiB",
            "272 / 630 MiB",
        ),
    ]


def _sizes() -> list[Figure]:
    """The same requests at growing numbers of objects, as processor time of the server, which a busy machine bears."""
    creates: list[float] = []
    gets: list[float] = []
    pages: list[float] = []
    with cluster("bench-sizes", "--only", "apiserver") as made:
        target = Target(made)
        made.kubectl("create", "configmap", "target", "--from-literal=key=value")
        target.post(CONFIG_MAPS, CONFIG_MAP, 32, 1)  # the first requests load what later ones use
        for size in SIZES:
            while target.count(CONFIG_MAPS) < size:
                target.post(CONFIG_MAPS, CONFIG_MAP, 32, 1)
            gets.append(target.get(f"{CONFIG_MAPS}/target", 32, SECONDS).server_cost)
            pages.append(target.get(f"{CONFIG_MAPS}?limit=100", 8, SECONDS).server_cost)
            creates.append(target.post(CONFIG_MAPS, CONFIG_MAP, 32, 2).server_cost)
            say(f"api: {size:,} objects: create {creates[-1]:.0f}, GET {gets[-1]:.0f}, page {pages[-1]:.0f} µs of CPU")
    told = "; ".join(
        f"{name} {' / '.join(f'{cost:.0f}' for cost in costs)}"
        for name, costs in (("create", creates), ("GET", gets), ("LIST of 100", pages))
    )
    sizes = " / ".join(f"{size:,}" for size in SIZES)
    return [Figure(f"server CPU a request at {sizes} objects", f"{told} µs", "flat")]
