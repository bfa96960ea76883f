"""The claims of one pod against all nodes at once: where they are, which volumes they would get, what must be made.

Pure. Upstream asks node by node (FindPodVolumes); here every claim carries an array that says, for each node, which
volume it would get there. Used by the VolumeBinding plugin.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from api import volumes as rules
from api.models import core_v1, storage_v1
from api.volumes import Claim, StorageClass, Volume, annotations_of
from machinery.selectors import LabelSelector
from scheduler.framework.columns import BoolArray, IntArray
from scheduler.framework.node_selector import Term
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.volume_catalog import VolumeCatalog

NODE_CONFLICT: Final = "node(s) didn't match PersistentVolume's node affinity"
BIND_CONFLICT: Final = "node(s) didn't find available persistent volumes to bind"
NOT_ENOUGH_SPACE: Final = "node(s) did not have enough free storage"
VOLUME_MISSING: Final = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
UNBOUND: Final = "pod has unbound immediate PersistentVolumeClaims"
_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class Sorted:
    """A pod's claims: bound ones, and those that are bound where the pod goes."""

    bound: tuple[Claim, ...]
    waiting: tuple[Claim, ...]


class Reach:
    """Which nodes can use a volume, as columns; kept while neither changes."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Volume, IntArray]] = {}
        self._version = -1

    def columns(self, volume: Volume, snapshot: ClusterSnapshot) -> IntArray:
        if self._version != snapshot.static_version or len(self._kept) >= _KEPT:
            self._kept.clear()
            self._version = snapshot.static_version
        name = volume.metadata.name or ""
        kept = self._kept.get(name)
        if kept is None or kept[0].spec is not volume.spec:
            kept = self._kept[name] = (volume, self.mask(volume, snapshot).nonzero()[0])
        return kept[1]

    @staticmethod
    def mask(volume: Volume, snapshot: ClusterSnapshot) -> BoolArray:
        affinity = volume.spec.nodeAffinity
        if affinity is None or affinity.required is None:
            return snapshot.exists[: snapshot.width]
        mask = np.zeros(snapshot.width, dtype=np.bool_)
        for term in affinity.required.nodeSelectorTerms or ():
            if not term.matchFields:  # volumes choose nodes by label only
                mask |= Term.compile(term).mask(snapshot)
        return mask & snapshot.exists[: snapshot.width]


@dataclass(slots=True)
class Placement:
    """What a pod's claims mean for each node. `matches`: (claim, volumes, which of them by node or -1)."""

    claims: Sorted
    node_conflict: BoolArray
    bind_conflict: BoolArray
    no_space: BoolArray
    missing: BoolArray
    matches: list[tuple[Claim, Sequence[Volume], IntArray]] = field(default_factory=list)
    selected: list[Claim] = field(default_factory=list)

    def fits(self) -> BoolArray:
        return ~(self.node_conflict | self.bind_conflict | self.no_space | self.missing)

    def reasons_at(self, column: int) -> tuple[str, ...]:
        told = (
            (self.node_conflict, NODE_CONFLICT),
            (self.bind_conflict, BIND_CONFLICT),
            (self.no_space, NOT_ENOUGH_SPACE),
            (self.missing, VOLUME_MISSING),
        )
        return tuple(reason for mask, reason in told if mask[column])

    def at(self, column: int) -> tuple[list[tuple[Claim, Volume]], list[Claim]]:
        """(claims with the volumes they get on that node, claims for which volumes are made there)."""
        bindings: list[tuple[Claim, Volume]] = []
        provisions = list(self.selected)
        for claim, volumes, chosen in self.matches:
            index = int(chosen[column])
            if index < 0:
                provisions.append(claim)
            else:
                bindings.append((claim, volumes[index]))
        return bindings, provisions


def told(catalog: VolumeCatalog, namespace: str, name: str) -> str:
    """How it stands with a claim, for people."""
    claim = catalog.claim((namespace, name))
    if claim is None:
        return "does not exist"
    volume = catalog.volume(claim.spec.volumeName) if claim.spec.volumeName else None
    if rules.is_fully_bound(claim):
        return f"is bound to {claim.spec.volumeName}" + ("" if volume is not None else ", which does not exist")
    class_ = f"class {rules.class_of(claim)}" if rules.class_of(claim) else "no class"
    if not rules.waits_for_consumer(claim, catalog.classes):
        return f"is not bound yet, and does not wait for its pod ({class_})"
    node = annotations_of(claim).get(rules.SELECTED_NODE)
    return f"is to be provisioned on {node} ({class_})" if node else f"will be bound where its pod goes ({class_})"


def sort_claims(catalog: VolumeCatalog, claims: Iterable[Claim]) -> Sorted | None:
    """None when one is neither bound nor waits for its pod: the pod must wait for it."""
    bound, waiting = [], []
    for claim in claims:
        if rules.is_fully_bound(claim):
            bound.append(claim)
        elif not claim.spec.volumeName and rules.waits_for_consumer(claim, catalog.classes):
            waiting.append(claim)
        else:
            return None
    return Sorted(tuple(bound), tuple(waiting))


def place(claims: Sorted, snapshot: ClusterSnapshot, reach: Reach) -> Placement:
    """Evaluate over all nodes."""
    width = snapshot.width
    none = np.zeros(width, dtype=np.bool_)
    made = Placement(claims, none.copy(), none.copy(), none.copy(), none.copy())
    _place_bound(made, snapshot, reach)
    if claims.waiting:
        _place_waiting(made, snapshot, reach)
    return made


def _place_bound(made: Placement, snapshot: ClusterSnapshot, reach: Reach) -> None:
    """A node is refused for the first claim that fails there."""
    undecided = np.ones(snapshot.width, dtype=np.bool_)
    for claim in made.claims.bound:
        volume = snapshot.volumes.volume(claim.spec.volumeName or "")
        if volume is None:
            made.missing |= undecided
            return
        if volume.spec.nodeAffinity is None or volume.spec.nodeAffinity.required is None:
            continue
        inside = np.zeros(snapshot.width, dtype=np.bool_)
        inside[reach.columns(volume, snapshot)] = True
        made.node_conflict |= undecided & ~inside
        undecided &= inside


def _place_waiting(made: Placement, snapshot: ClusterSnapshot, reach: Reach) -> None:
    rest: list[Claim] = []
    for claim in made.claims.waiting:
        node = annotations_of(claim).get(rules.SELECTED_NODE)
        if node is None:
            rest.append(claim)
            continue
        elsewhere = np.ones(snapshot.width, dtype=np.bool_)
        column = snapshot.column(node)
        if column is not None:
            elsewhere[column] = False
        made.bind_conflict |= elsewhere
        made.selected.append(claim)
    undecided = ~made.bind_conflict
    for claim in made.selected:
        _provision(made, claim, undecided, undecided.copy(), snapshot)
    for claim in sorted(rest, key=rules.requested):
        volumes, chosen = _match(made, claim, snapshot, reach)
        made.matches.append((claim, volumes, chosen))
    for claim, _, chosen in made.matches:
        _provision(made, claim, undecided, chosen < 0, snapshot)


def _match(made: Placement, claim: Claim, snapshot: ClusterSnapshot, reach: Reach) -> tuple[Sequence[Volume], IntArray]:
    """For every node the smallest free volume it can reach, which no earlier claim has taken there."""
    chosen = np.full(snapshot.width, -1, dtype=np.int64)
    fitting: list[Volume] = []
    for volume in snapshot.volumes.volumes_of_class(rules.class_of(claim)):
        if rules.is_reserved(volume, claim):
            chosen[reach.columns(volume, snapshot)] = 0
            return [volume], chosen
        if rules.has_modes(volume, claim) and rules.is_candidate(volume, claim):
            fitting.append(volume)
    fitting.sort(key=lambda each: (rules.capacity(each), each.metadata.name or ""))
    earlier = [({each.metadata.name: at for at, each in enumerate(others)}, taken) for _, others, taken in made.matches]
    for index, volume in enumerate(fitting):
        columns = reach.columns(volume, snapshot)
        free = chosen[columns] < 0
        for positions, taken in earlier:
            position = positions.get(volume.metadata.name)
            if position is not None:
                free &= taken[columns] != position
        chosen[columns[free]] = index
    return fitting, chosen


def _provision(
    made: Placement, claim: Claim, undecided: BoolArray, wanted: BoolArray, snapshot: ClusterSnapshot
) -> None:
    """Where no volume was found, one must be made: refuse the nodes for which that cannot be."""
    need = wanted & undecided
    if not need.any():
        return
    storage_class = snapshot.volumes.classes.get(rules.class_of(claim))
    if storage_class is None or storage_class.provisioner in ("", rules.NO_PROVISIONER):
        made.bind_conflict |= need
        undecided &= ~need
        return
    outside = need & ~_topology(storage_class, snapshot)
    made.bind_conflict |= outside
    undecided &= ~outside
    need &= ~outside
    enough = _space(claim, storage_class, snapshot)
    if enough is not None:
        short = need & ~enough
        made.no_space |= short
        undecided &= ~short


def _topology(storage_class: StorageClass, snapshot: ClusterSnapshot) -> BoolArray:
    terms = storage_class.allowedTopologies
    if not terms:
        return np.ones(snapshot.width, dtype=np.bool_)
    mask = np.zeros(snapshot.width, dtype=np.bool_)
    for term in terms:
        expressions = [
            core_v1.NodeSelectorRequirement(key=each.key, operator="In", values=each.values)
            for each in term.matchLabelExpressions or ()
        ]
        if expressions:
            mask |= Term.compile(core_v1.NodeSelectorTerm(matchExpressions=expressions)).mask(snapshot)
    return mask


def _space(claim: Claim, storage_class: StorageClass, snapshot: ClusterSnapshot) -> BoolArray | None:
    """Where the driver says it has room for the claim; None when it says nothing of the kind."""
    catalog = snapshot.volumes
    driver = catalog.csi_drivers.get(storage_class.provisioner)
    if driver is None or not driver.spec.storageCapacity:
        return None
    mask = np.zeros(snapshot.width, dtype=np.bool_)
    for capacity in catalog.capacities.values():
        if capacity.storageClassName == storage_class.metadata.name and _has_room(capacity, rules.requested(claim)):
            mask |= _selected(capacity, snapshot)
    return mask


def limit(capacity: storage_v1.CSIStorageCapacity) -> int | None:
    """The largest volume that can be made there, None when it is not known."""
    text = capacity.maximumVolumeSize if capacity.maximumVolumeSize is not None else capacity.capacity
    return rules.size(text) if text is not None else None


def _has_room(capacity: storage_v1.CSIStorageCapacity, size: int) -> bool:
    found = limit(capacity)
    return found is not None and found >= size


def _selected(capacity: storage_v1.CSIStorageCapacity, snapshot: ClusterSnapshot) -> BoolArray:
    try:
        selector = LabelSelector.from_object(capacity.nodeTopology)
    except ValueError:
        selector = LabelSelector.nothing()
    labels = (
        record.node.metadata.labels if record is not None and record.node.metadata is not None else None
        for record in snapshot.records
    )
    return np.array([selector.matches(each or {}) for each in labels], dtype=np.bool_)


def bound_volume(volume: Volume, claim: Claim) -> Volume:
    """The volume as it will be once it is set aside for the claim."""
    marks = dict(annotations_of(volume))
    if volume.spec.claimRef is None:
        marks[rules.BOUND_BY_CONTROLLER] = "yes"
    meta = claim.metadata
    ref = core_v1.ObjectReference(
        apiVersion="v1",
        kind="PersistentVolumeClaim",
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resourceVersion=meta.resourceVersion,
    )
    replace = msgspec.structs.replace
    assert volume.metadata is not None and volume.spec is not None
    return replace(
        volume, metadata=replace(volume.metadata, annotations=marks), spec=replace(volume.spec, claimRef=ref)
    )


def selected_claim(claim: Claim, node: str) -> Claim:
    """The claim as it will be once its provisioner knows where."""
    marks = {**annotations_of(claim), rules.SELECTED_NODE: node}
    replace = msgspec.structs.replace
    assert claim.metadata is not None
    return replace(claim, metadata=replace(claim.metadata, annotations=marks))
