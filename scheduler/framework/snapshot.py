"""The cluster as arrays: one column per node, updated in place as events come.

Owns the account of what nodes offer, what pods take, and the facts that filters and scores ask for. Never does I/O,
never decides. Written by event handlers (and by simulations, between `fork` and `revert`); read by plugins.

Updating a pod costs the same however large the cluster is. Every change is told to evaluations that keep results:
`static_version` moves when something about a node itself changed (labels, taints, images, its existence) or what pods
mean to one another (terms that no pod had before, labels of namespaces, selectors of workloads), and the change log
names the columns whose pods or allocatable changed. Over 500 lines because all arrays have one writer, which keeps them
in step and can undo each write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from api.models import core_v1
from scheduler.framework import node_facts as facts
from scheduler.framework import resources
from scheduler.framework.columns import BoolArray, FloatArray, IntArray, Interned, row_view
from scheduler.framework.pod_info import ANY_IP, HostPort, PodInfo
from scheduler.framework.pod_terms import Labels, Question
from scheduler.framework.preemption import importance
from scheduler.framework.priority_levels import PriorityLevels
from scheduler.framework.tallies import PodTallies, Tally
from scheduler.framework.volume_catalog import Key, VolumeCatalog
from scheduler.framework.workloads import Workloads

CPU_ROW, MEMORY_ROW, STORAGE_ROW, PODS_ROW = range(4)
_FIRST_ROWS = (resources.CPU, resources.MEMORY, resources.EPHEMERAL_STORAGE, resources.PODS)
_LOG_LIMIT = 1 << 16


class ImageState:
    """An image that some nodes have."""

    __slots__ = ("columns", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.columns: set[int] = set()


class NodeRecord:
    """What the arrays do not hold about a node."""

    __slots__ = ("column", "images", "name", "node", "pods", "ranked", "scoring_cpu", "scoring_memory", "with_volumes")

    def __init__(self, name: str, column: int, node: core_v1.Node) -> None:
        self.name = name
        self.column = column
        self.node = node
        self.pods: dict[str, PodInfo] = {}
        self.with_volumes: dict[str, PodInfo] = {}  # those of the pods that have claims or disks
        self.ranked: list[PodInfo] | None = None  # the pods by importance, once somebody asked
        self.scoring_cpu = 0
        self.scoring_memory = 0
        self.images: tuple[str, ...] = ()

    def by_importance(self) -> list[PodInfo]:
        """The node's pods, the most important first; kept until they change."""
        if self.ranked is None:
            self.ranked = sorted(self.pods.values(), key=importance)
        return self.ranked


class ClusterSnapshot:
    """Struct-of-arrays over nodes. Read `[:width]` of an array; `exists` tells columns in use from free ones."""

    def __init__(self, capacity: int = 16) -> None:
        self.width = 0
        self.records: list[NodeRecord | None] = []
        self.static_version = 0
        self.labels: dict[str, Interned[str]] = {}
        self.taint_sets: Interned[facts.TaintSet] = Interned(capacity, ())
        self.images: dict[str, ImageState] = {}
        self.rows: dict[str, int] = {name: row for row, name in enumerate(_FIRST_ROWS)}
        self.pods = PodTallies(capacity)
        self.volumes = VolumeCatalog()
        self.claim_users: dict[Key, dict[int, int]] = {}  # how many pods use a claim, by column
        self.workloads = Workloads()  # whoever changes it calls `workloads_changed`
        self._levels: PriorityLevels | None = None
        self._names: Sequence[str] = ()
        self._names_version = -1
        self._ports: dict[tuple[str, int], dict[str, dict[int, int]]] = {}
        self._index: dict[str, int] = {}
        self._free_columns: list[int] = []
        self._homes: dict[str, str] = {}  # uid -> name of the node, known or not
        self._orphans: dict[str, dict[str, PodInfo]] = {}  # pods of nodes that are not known (yet, or any more)
        self._log: list[int] = []
        self._log_start = 0
        self._journal: list[list[Callable[[], object]]] = []
        self._forks = 0
        self._capacity = capacity
        self.exists: BoolArray = np.zeros(capacity, dtype=np.bool_)
        self.unschedulable: BoolArray = np.zeros(capacity, dtype=np.bool_)
        self.allocatable: IntArray = np.zeros((len(_FIRST_ROWS), capacity), dtype=np.int64)
        self.requested: IntArray = np.zeros_like(self.allocatable)
        self.free: IntArray = np.zeros_like(self.allocatable)
        # For scores, CPU and memory only: hundredfold capacity, hundredfold room left by scoring requests, capacity
        # with 1 for 0 (a divisor), use, and 150 less the balance of the node as it is now.
        self.capacity100: FloatArray = np.zeros((2, capacity))
        self.spare100: FloatArray = np.zeros((2, capacity))
        self.divisor: FloatArray = np.ones((2, capacity))
        self.used: FloatArray = np.zeros((2, capacity))
        self.kinds: FloatArray = np.ones(capacity)  # how many of the two the node has at all, at least 1
        self.evenness: FloatArray = np.zeros(capacity)  # 0.5, or 0 for a node that lacks one of the two
        self.balance_gap: FloatArray = np.zeros(capacity)
        self._views()

    # --- reading -------------------------------------------------------------------------------------------------

    @property
    def node_count(self) -> int:
        return len(self._index)

    @property
    def pod_count(self) -> int:
        return len(self._homes)

    def column(self, name: str) -> int | None:
        return self._index.get(name)

    def record(self, name: str) -> NodeRecord | None:
        column = self._index.get(name)
        return None if column is None else self.records[column]

    def name_at(self, column: int) -> str:
        record = self.records[column]
        return record.name if record is not None else ""

    def names(self) -> Sequence[str]:
        """Names by column, "" for columns not in use; not to be changed: it is shared until the nodes change."""
        if self._names_version != self.static_version:
            self._names = [record.name if record is not None else "" for record in self.records]
            self._names_version = self.static_version
        return self._names

    def home_of(self, uid: str) -> str | None:
        """The node a pod was placed on."""
        return self._homes.get(uid)

    def pod(self, uid: str) -> PodInfo | None:
        home = self._homes.get(uid)
        if home is None:
            return None
        record = self.record(home)
        return record.pods[uid] if record is not None else self._orphans[home][uid]

    @property
    def log_end(self) -> int:
        return self._log_start + len(self._log)

    def changed_since(self, position: int) -> list[int] | None:
        """Columns touched since a position of the change log, newest last; None when that is forgotten."""
        if position < self._log_start:
            return None
        return self._log[position - self._log_start :]

    def taken_below(self, priority: int) -> IntArray:
        """What pods of lower priority take on every node, in the rows of `requested`."""
        levels = None if self._forks else self._levels
        if levels is None:
            homes = ((info, record.column) for record in filter(None, self.records) for info in record.pods.values())
            levels = PriorityLevels.of(homes, self.rows, self._capacity, PODS_ROW)
            if not self._forks:
                self._levels = levels
        return levels.below(priority)[:, : self.width]

    def columns_using(self, port: HostPort) -> set[int]:
        """Nodes on which the port cannot be taken: a port of one IP clashes with that of all IPs."""
        protocol, ip, number = port
        by_ip = self._ports.get((protocol, number))
        if by_ip is None:
            return set()
        if ip == ANY_IP:
            return set().union(*by_ip.values())
        return set(by_ip.get(ip, ())) | set(by_ip.get(ANY_IP, ()))

    def scoring_at(self, kind: int, column: int) -> tuple[float, float, float]:
        """(hundredfold capacity, hundredfold room by scoring requests, divisor) of CPU (0) or memory (1)."""
        return self._capacity_rows[kind][column], self._spare_rows[kind][column], self._divisor_rows[kind][column]

    def balance_score_at(self, wanted: tuple[float, float], column: int) -> float:
        """How a pod would change the balance of one node, 50-100: see the BalancedAllocation plugin."""
        cpu = min((self._used_rows[0][column] + wanted[0]) / self._divisor_rows[0][column], 1.0)
        memory = min((self._used_rows[1][column] + wanted[1]) / self._divisor_rows[1][column], 1.0)
        after: float = (1.0 - abs(cpu - memory) * self._evenness_row[column]) * 100.0 // 1.0
        return float((after + self._balance_row[column]) * 0.5 // 1.0)

    # --- nodes ---------------------------------------------------------------------------------------------------

    def set_node(self, node: core_v1.Node) -> None:
        """Add a node, or take over its new state."""
        name = facts.name(node)
        column = self._index.get(name)
        if column is None:
            record = self._new_record(name, node)
            self._undo(lambda: self.remove_node(name))
            self._write_static(record, None)
            self._write_allocatable(record)
            # Tallies by label value must not be taken for true while pods return to a node with new labels.
            self.static_version += 1
            for info in self._orphans.pop(name, {}).values():
                self._occupy(record, info, 1)
            return
        known = self.records[column]
        assert known is not None
        old = known.node
        self._undo(lambda: self.set_node(old))
        known.node = node
        if self._write_static(known, old):
            self.static_version += 1
        if old.status is None or node.status is None or old.status.allocatable != node.status.allocatable:
            self._write_allocatable(known)
            self._touch(column)

    def remove_node(self, name: str) -> None:
        """Forget a node; its pods stay on the account and return with it."""
        column = self._index.pop(name, None)
        if column is None:
            return
        record = self.records[column]
        assert record is not None
        self._undo(lambda: self.set_node(record.node))
        orphans = dict(record.pods)
        for info in orphans.values():
            self._occupy(record, info, -1)
        if orphans:
            self._orphans[name] = orphans
        for key in facts.labels(record.node):
            self._clear_label(key, column)
        self.taint_sets.clear(column)
        self._set_images(record, {})
        self.exists[column] = False
        self.records[column] = None
        self._free_columns.append(column)
        self.static_version += 1

    def _new_record(self, name: str, node: core_v1.Node) -> NodeRecord:
        if self._free_columns:
            column = self._free_columns.pop()
        else:
            column = self.width
            if column == self._capacity:
                self._grow()
            self.width += 1
            self.records.append(None)
        record = NodeRecord(name, column, node)
        self.records[column] = record
        self._index[name] = column
        self.exists[column] = True
        return record

    def _write_static(self, record: NodeRecord, old: core_v1.Node | None) -> bool:
        """Labels, taints, cordon, images. Returns whether anything changed."""
        node, column = record.node, record.column
        changed = False
        labels = facts.labels(node)
        before = facts.labels(old) if old is not None else {}
        if labels != before:
            changed = True
            for key in before:
                if key not in labels:
                    self._clear_label(key, column)
            for key, value in labels.items():
                interned = self.labels.get(key)
                if interned is None:
                    # "\0" cannot be a label value; "" can.
                    interned = self.labels[key] = Interned(self._capacity, "\0")
                interned.set(column, value)
        taints = facts.taints(node)
        if old is None or taints != facts.taints(old):
            changed = True
            self.taint_sets.set(column, taints)
        if self.unschedulable[column] != facts.unschedulable(node):
            changed = True
            self.unschedulable[column] = facts.unschedulable(node)
        images = facts.images(node)
        if tuple(images) != record.images:
            changed = True
            self._set_images(record, images)
        return changed

    def _clear_label(self, key: str, column: int) -> None:
        interned = self.labels.get(key)
        if interned is not None:
            interned.clear(column)
            if interned.is_empty:
                del self.labels[key]

    def _set_images(self, record: NodeRecord, images: Mapping[str, int]) -> None:
        for name in record.images:
            if name not in images and (state := self.images.get(name)) is not None:
                state.columns.discard(record.column)
                if not state.columns:
                    del self.images[name]
        for name, size in images.items():
            self.images.setdefault(name, ImageState(size)).columns.add(record.column)
        record.images = tuple(images)

    def _write_allocatable(self, record: NodeRecord) -> None:
        column = record.column
        offered = facts.allocatable(record.node)
        for name in offered:
            if name not in self.rows:
                self._add_row(name)
        for name, row in self.rows.items():
            amount = offered.get(name, 0)
            self.allocatable[row, column] = amount
            self.free_rows[row][column] = amount - self._requested_rows[row][column]
        capacities = offered.get(resources.CPU, 0), offered.get(resources.MEMORY, 0)
        for row, amount in enumerate(capacities):
            self.capacity100[row, column] = 100.0 * amount
            self.divisor[row, column] = amount or 1
        self.kinds[column] = max(sum(amount > 0 for amount in capacities), 1)
        self.evenness[column] = 0.5 if all(capacities) else 0.0
        self._write_scores(record)

    # --- pods ----------------------------------------------------------------------------------------------------

    def add_pod(self, info: PodInfo, node: str) -> None:
        """Count a pod on a node (known or not yet). A pod that is counted already moves or is replaced."""
        home = self._homes.get(info.uid)
        if home is not None:
            if home == node:
                record = self.record(node)
                known = record.pods[info.uid] if record is not None else self._orphans[node][info.uid]
                if known.occupies_as(info):
                    if record is not None:
                        record.ranked = None
                    (record.pods if record is not None else self._orphans[node])[info.uid] = info
                    self._undo(lambda: self.add_pod(known, node))
                    return
            self.remove_pod(info.uid)
        self._homes[info.uid] = node
        self._undo(lambda: self.remove_pod(info.uid))
        record = self.record(node)
        if record is None:
            self._orphans.setdefault(node, {})[info.uid] = info
        else:
            self._occupy(record, info, 1)

    def remove_pod(self, uid: str) -> PodInfo | None:
        """Take a pod off the account; None when it was not on it."""
        node = self._homes.pop(uid, None)
        if node is None:
            return None
        record = self.record(node)
        if record is not None:
            info = record.pods[uid]
            self._occupy(record, info, -1)
        else:
            orphans = self._orphans[node]
            info = orphans.pop(uid)
            if not orphans:
                del self._orphans[node]
        self._undo(lambda: self.add_pod(info, node))
        return info

    def _occupy(self, record: NodeRecord, info: PodInfo, sign: int) -> None:
        column = record.column
        requested, free = self._requested_rows, self.free_rows
        rows = self.rows
        for name, amount in info.requests.items():
            row = rows.get(name)
            if row is None:
                row = self._add_row(name)
                requested, free = self._requested_rows, self.free_rows
            amount *= sign
            requested[row][column] += amount
            free[row][column] -= amount
        requested[PODS_ROW][column] += sign
        free[PODS_ROW][column] -= sign
        if sign > 0:
            record.pods[info.uid] = info
        else:
            del record.pods[info.uid]
        record.ranked = None
        record.scoring_cpu += sign * info.scoring_cpu
        record.scoring_memory += sign * info.scoring_memory
        if info.host_ports:
            self._take_ports(column, info.host_ports, sign)
        if info.claims or info.disks:
            self._use_volumes(record, info, sign)
        if self.pods.occupy(info, column, sign, self.static_version, self._forks > 0):
            self.static_version += 1
        # What a simulation moves, it moves back, and meanwhile levels are computed anew.
        if self._levels is not None and not self._forks:
            self._levels.add(info, column, sign, self.rows)
        self._write_scores(record)
        self._touch(column)

    def _write_scores(self, record: NodeRecord) -> None:
        """Derived from the exact account, never accumulated: floats do not drift here."""
        column = record.column
        cpu = self._allocatable_rows[CPU_ROW][column]
        memory = self._allocatable_rows[MEMORY_ROW][column]
        cpu_used = self._requested_rows[CPU_ROW][column]
        memory_used = self._requested_rows[MEMORY_ROW][column]
        spare_cpu, spare_memory = self._spare_rows
        spare_cpu[column] = 100.0 * (cpu - record.scoring_cpu)
        spare_memory[column] = 100.0 * (memory - record.scoring_memory)
        used_cpu, used_memory = self._used_rows
        used_cpu[column] = cpu_used
        used_memory[column] = memory_used
        self._balance_row[column] = 150 - facts.balance(cpu_used, cpu, memory_used, memory)

    def _use_volumes(self, record: NodeRecord, info: PodInfo, sign: int) -> None:
        if sign > 0:
            record.with_volumes[info.uid] = info
        else:
            record.with_volumes.pop(info.uid, None)
        for name in info.claims:
            key = (info.namespace, name)
            users = self.claim_users.setdefault(key, {})
            users[record.column] = users.get(record.column, 0) + sign
            if users[record.column] <= 0:
                del users[record.column]
                if not users:
                    del self.claim_users[key]

    def _take_ports(self, column: int, ports: Iterable[HostPort], sign: int) -> None:
        for protocol, ip, number in ports:
            by_ip = self._ports.setdefault((protocol, number), {})
            counts = by_ip.setdefault(ip, {})
            counts[column] = counts.get(column, 0) + sign
            if counts[column] <= 0:
                del counts[column]
                if not counts:
                    del by_ip[ip]
                    if not by_ip:
                        del self._ports[(protocol, number)]

    # --- what pods mean to one another --------------------------------------------------------------------------

    def tally(self, question: Question) -> Tally:
        """How many pods match, by node and by label value; ask again rather than keep it."""
        return self.pods.tally(question)

    def set_namespace(self, name: str, labels: Labels | None) -> None:
        """Take over a namespace's labels; None when it is gone."""
        if self.pods.set_namespace(name, labels):
            self.static_version += 1

    def workloads_changed(self) -> None:
        """Default spreading may mean other pods now."""
        self.static_version += 1

    # --- simulation ----------------------------------------------------------------------------------------------

    def fork(self) -> None:
        """Start noting how to undo what follows. Forks nest."""
        self._journal.append([])
        self._forks += 1

    def revert(self) -> None:
        """Undo everything since the last fork."""
        steps = self._journal.pop()
        outer, self._journal = self._journal, []
        for step in reversed(steps):
            step()
        self._journal = outer
        self._forks -= 1

    def commit(self) -> None:
        """Keep what was done since the last fork (an outer fork can still revert it)."""
        steps = self._journal.pop()
        self._forks -= 1
        self._levels = None
        if self._journal:
            self._journal[-1].extend(steps)

    def _undo(self, step: Callable[[], object]) -> None:
        if self._journal:
            self._journal[-1].append(step)

    # --- storage -------------------------------------------------------------------------------------------------

    def _touch(self, column: int) -> None:
        self._log.append(column)
        if len(self._log) > _LOG_LIMIT:
            self._log_start += len(self._log)
            self._log.clear()

    def _views(self) -> None:
        """Rows again as views for single numbers."""
        self._allocatable_rows = [row_view(row) for row in self.allocatable]
        self._requested_rows = [row_view(row) for row in self.requested]
        self.free_rows = [row_view(row) for row in self.free]
        self._spare_rows = [row_view(row) for row in self.spare100]
        self._used_rows = [row_view(row) for row in self.used]
        self._capacity_rows = [row_view(row) for row in self.capacity100]
        self._divisor_rows = [row_view(row) for row in self.divisor]
        self._evenness_row = row_view(self.evenness)
        self._balance_row = row_view(self.balance_gap)

    def _add_row(self, name: str) -> int:
        row = len(self.rows)
        self.rows[name] = row
        empty = np.zeros((1, self._capacity), dtype=np.int64)
        self.allocatable = np.concatenate((self.allocatable, empty))
        self.requested = np.concatenate((self.requested, empty))
        self.free = np.concatenate((self.free, empty))
        self._levels = None
        self._views()
        # Evaluations hold row numbers of resources they know; a request for one that was unknown is decided anew.
        self.static_version += 1
        return row

    def _grow(self) -> None:
        capacity = self._capacity * 2
        more = capacity - self._capacity

        def wide(array: np.ndarray, fill: float = 0) -> np.ndarray:
            width = [(0, 0)] * (array.ndim - 1) + [(0, more)]
            return np.pad(array, width, constant_values=fill)

        plain = "exists unschedulable allocatable requested free capacity100 spare100 used evenness balance_gap"
        for name in plain.split():
            setattr(self, name, wide(getattr(self, name)))
        self.divisor = wide(self.divisor, 1)
        self.kinds = wide(self.kinds, 1)
        for interned in self.labels.values():
            interned.grow(capacity)
        self.taint_sets.grow(capacity)
        self.pods.grow(capacity)
        self._levels = None
        self._capacity = capacity
        self._views()
