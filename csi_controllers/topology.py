"""Where a volume may be: from the nodes that have the driver, the class, and the node that a pod was given. Pure.

Owns upstream's rules (external-provisioner, `GenerateAccessibilityRequirements`): all topologies of the cluster, or
those that the class allows, are requisite; the chosen node's comes first, the others follow in a fixed order that
begins elsewhere for each claim.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api.models import core_v1, storage_v1
from proto.csi.v1 import csi_pb2 as pb

Segments = Mapping[str, str]


class NoTopology(Exception):
    """It cannot be said where the volume may be; the message is upstream's."""


def keys_of(csi_node: storage_v1.CSINode | None, driver: str) -> Sequence[str] | None:
    """The topology keys that the driver has on a node; None when it is not there."""
    for each in (csi_node.spec.drivers if csi_node is not None and csi_node.spec is not None else None) or ():
        if each.name == driver:
            return tuple(each.topologyKeys or ())
    return None


def segments_of(labels: Mapping[str, str], keys: Iterable[str]) -> Segments | None:
    """A node's values of these keys; None when one is missing."""
    found = {key: labels[key] for key in keys if key in labels}
    return found if set(found) == set(keys) else None


def allowed_segments(terms: Sequence[core_v1.TopologySelectorTerm]) -> list[Segments]:
    """Every combination that the class's allowedTopologies stand for."""
    found: list[Segments] = []
    for term in terms:
        keys = [each.key for each in term.matchLabelExpressions or ()]
        values = [each.values or [] for each in term.matchLabelExpressions or ()]
        found += [dict(zip(keys, chosen, strict=True)) for chosen in itertools.product(*values) if keys]
    return found


def requirement(
    claim: str,
    driver: str,
    csi_nodes: Mapping[str, storage_v1.CSINode],
    labels: Mapping[str, Mapping[str, str]],
    allowed: Sequence[core_v1.TopologySelectorTerm],
    selected: str,
) -> pb.TopologyRequirement:
    """What CreateVolume is told. `labels` by node name; `selected`: "" when no pod decides. Raises NoTopology."""
    keys: Sequence[str] | None = None
    mine: Segments | None = None
    if selected:
        keys = keys_of(csi_nodes.get(selected), driver)
        if not keys:
            raise NoTopology(f"no topology key found for node {selected}")
        mine = segments_of(labels.get(selected, {}), keys)
        if mine is None:
            raise NoTopology(f"topology labels from node {selected} do not match topology keys from CSINode")
    requisite = allowed_segments(allowed) if allowed else _of_cluster(driver, csi_nodes, labels, keys)
    if not requisite:
        raise NoTopology("no available topology found")
    ordered = sorted({_canonical(each): each for each in requisite}.items())
    terms = [each for _, each in ordered]
    if mine is not None:
        at = next((number for number, each in enumerate(terms) if each.items() <= mine.items()), None)
        if at is None:
            raise NoTopology(f"selected node '{_canonical(mine)}' topology is not in allowed topologies: {terms}")
    else:
        at = int(hashlib.sha256(claim.encode()).hexdigest(), 16) % len(terms)
    preferred = [*terms[at:], *terms[:at]]
    return pb.TopologyRequirement(requisite=map(_message, terms), preferred=map(_message, preferred))


def _of_cluster(
    driver: str,
    csi_nodes: Mapping[str, storage_v1.CSINode],
    labels: Mapping[str, Mapping[str, str]],
    keys: Sequence[str] | None,
) -> list[Segments]:
    """The topologies of all nodes that have the driver with the same keys as the chosen one (or the first)."""
    found: list[Segments] = []
    for name in sorted(csi_nodes):
        own = keys_of(csi_nodes[name], driver)
        if not own or name not in labels:
            continue
        keys = own if keys is None else keys
        segments = segments_of(labels[name], keys) if set(own) == set(keys) else None
        if segments is not None:
            found.append(segments)
    return found


def _canonical(segments: Segments) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(segments.items()))


def _message(segments: Segments) -> pb.Topology:
    return pb.Topology(segments=segments)


def node_affinity(topologies: Iterable[pb.Topology]) -> dict[str, Any] | None:
    """The nodeAffinity of a volume that is reachable from any of these; None: from everywhere."""
    terms = [
        {
            "matchExpressions": [
                {"key": key, "operator": "In", "values": [value]} for key, value in sorted(each.segments.items())
            ]
        }
        for each in topologies
        if each.segments
    ]
    return {"required": {"nodeSelectorTerms": terms}} if terms else None
