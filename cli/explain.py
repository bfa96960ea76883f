"""`explain KIND NAME`: the last decision about an object, by the component that made it.

Owns how an explanation is printed: a pod's with every node's verdict and scores, others' as they are told. Components
compute it and answer on their Unix sockets.
"""

from __future__ import annotations

import asyncio

from cli import layout
from cli.errors import CommandError
from cli.layout import ClusterPaths
from cli.output import table
from cli.processes import explain_socket
from machinery import grpc as transport
from machinery.errors import ServiceUnavailable, StatusError
from proto.explain.v1 import explain_pb2 as pb

TIMEOUT = 10.0
DECIDERS = {
    "hpa": "controller-manager",
    "vpa": "vertical-pod-autoscaler",
    "node": "cluster-autoscaler",
    "nodegroup": "cluster-autoscaler",
    "scale-up": "cluster-autoscaler",
    "nodepool": "nodepool-autoscaler",
    "nodeclaim": "nodepool-autoscaler",
}
"""Which component decides about objects of a kind, where it is not the scheduler."""
NAMESPACED = frozenset({"hpa", "vpa", "scale-up"})


def decider(paths: ClusterPaths, kind: str) -> str:
    """The component; of two that scale nodes, the one that this cluster has."""
    config = layout.load(paths)
    pools = config is not None and config.nodepools
    return "nodepool-autoscaler" if kind in ("node", "scale-up") and pools else DECIDERS[kind]


def decision(paths: ClusterPaths, kind: str, namespace: str, name: str) -> str:
    """What to print. Raises CommandError."""
    component = decider(paths, kind)
    where = namespace if kind in NAMESPACED else ""
    try:
        found = asyncio.run(_decided(explain_socket(paths, component), kind, where, name))
    except ServiceUnavailable as error:
        raise CommandError(f"the {component} does not answer: {error.message}") from error
    except StatusError as error:
        raise CommandError(error.message) from error
    return told(found)


def told(found: pb.Decision) -> str:
    """A decision as text: what, when, the numbers, the tables."""
    lines = [found.headline, *([f"Decided at {found.time}."] if found.time else [])]
    width = max((len(fact.what) for fact in found.facts), default=0)
    lines += [f"  {fact.what:<{width}}  {fact.value}" for fact in found.facts]
    for each in found.tables:
        lines += ["", *([each.title] if each.title else []), table(each.header, [list(row.cells) for row in each.rows])]
    return "\n".join(lines)


async def _decided(socket: str, kind: str, namespace: str, name: str) -> pb.Decision:
    import grpc.aio

    from proto.explain.v1 import explain_pb2_grpc

    async with transport.channel(f"unix:{socket}") as channel:
        stub = explain_pb2_grpc.DecisionServiceStub(channel)
        try:
            answer: pb.Decision = await stub.Explain(
                pb.DecisionRequest(kind=kind, namespace=namespace, name=name), timeout=TIMEOUT
            )
        except grpc.aio.AioRpcError as error:
            raise transport.status_of(error) from error
        return answer


def pod(paths: ClusterPaths, namespace: str, name: str) -> str:
    """What to print. Raises CommandError."""
    try:
        found = asyncio.run(_ask(explain_socket(paths), namespace, name))
    except ServiceUnavailable as error:
        raise CommandError(f"the scheduler does not answer: {error.message}") from error
    except StatusError as error:
        raise CommandError(error.message) from error
    lines = [render(f"{namespace}/{name}", found)]
    if is_waiting(found):
        lines += _of_autoscaler(paths, namespace, name)
    return "\n\n".join(lines)


def is_waiting(found: pb.PodExplanation) -> bool:
    """Whether the scheduler looked for a node in vain, so that a new one would help."""
    return found.HasField("last") and not found.last.node and not (found.scheduler or found.gate)


def _of_autoscaler(paths: ClusterPaths, namespace: str, name: str) -> list[str]:
    """What an autoscaler of nodes did for a pod that waits; nothing where there is none, or it knows of no such pod."""
    component = decider(paths, "scale-up")
    try:
        found = asyncio.run(_decided(explain_socket(paths, component), "scale-up", namespace, name))
    except StatusError:
        return []
    return [f"{component.replace('-', ' ').capitalize()}: {told(found)}"]


async def _ask(socket: str, namespace: str, name: str) -> pb.PodExplanation:
    import grpc.aio

    from proto.explain.v1 import explain_pb2_grpc

    async with transport.channel(f"unix:{socket}") as channel:
        stub = explain_pb2_grpc.ExplainServiceStub(channel)
        try:
            answer: pb.PodExplanation = await stub.ExplainPod(
                pb.ExplainPodRequest(namespace=namespace, name=name), timeout=TIMEOUT
            )
        except grpc.aio.AioRpcError as error:
            raise transport.status_of(error) from error
        return answer


def _headline(name: str, found: pb.PodExplanation) -> list[str]:
    if found.scheduler:
        return [f"Pod {name} is not scheduled by this scheduler but by {found.scheduler!r}."]
    if found.gate:
        return [f"Pod {name} is not tried yet: {found.gate}."]
    if not found.HasField("last"):
        lines = [f"Pod {name}: no attempt is remembered."]
    else:
        last = found.last
        when = f"attempt {last.number} at {last.time}, {last.node_count} nodes"
        if last.node:
            chosen = f", one of {last.ties} equally good nodes" if last.ties > 1 else ""
            lines = [f"Pod {name} was given to {last.node} ({when}; score {last.score:g}{chosen})."]
        else:
            lines = [f"Pod {name} found no node ({when}):", f"  {last.message}"]
        if last.nominated_node:
            lines.append(f"It was promised {last.nominated_node} once its victims are gone.")
    if found.queue:
        lines.append(f"Now in the queue: {found.queue}.")
    lines += [f"Claim {claim.name} {claim.state}." for claim in found.claims]
    if found.recomputed:
        lines.append("Verdicts are of now: those of the attempt were not kept.")
    return lines


def render(name: str, found: pb.PodExplanation) -> str:
    """Best node first; refused ones after all others."""
    lines = _headline(name, found)
    if found.nodes:
        plugins = list(dict.fromkeys(score.plugin for node in found.nodes for score in node.scores))
        rows: list[tuple[bool, float, list[str]]] = []
        for node in found.nodes:
            scores = {score.plugin: score.score for score in node.scores}
            refused = bool(node.reasons or node.refused_by)
            total = sum(scores.values())
            cells = [f"{scores[plugin]:g}" if plugin in scores else "-" for plugin in plugins]
            verdict = f"{node.refused_by or 'refused'}: {', '.join(node.reasons)}" if refused else "fits"
            rows.append((refused, -total, [node.node, "-" if refused else f"{total:g}", *cells, verdict]))
        rows.sort(key=lambda row: (row[0], row[1], row[2][0]))
        header = ("NODE", "SCORE", *plugins, "VERDICT")
        lines += ["", table(header, [cells for _, _, cells in rows])]
    return "\n".join(lines)
