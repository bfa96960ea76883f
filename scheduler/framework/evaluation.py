"""Kept answers of filters and scores for one kind of pod, refreshed where the cluster changed.

Pods made from one template ask the same questions. An evaluation keeps the masks and totals of the last answer; when
only some columns changed since (a binding changes one), it asks the plugins that read a node's pods about these columns
alone, and those that read pods anywhere about all of them. Everything is recomputed when something about the nodes
themselves changed. Owned by `Framework`.

All nodes are evaluated: upstream's percentageOfNodesToScore exists because its per-node loop is costly, and sampling
would only make placement worse here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from scheduler.framework.columns import BoolArray, FloatArray, IntArray, row_view
from scheduler.framework.decision import FitError, VerdictTable
from scheduler.framework.interface import (
    MAX_SCORE,
    ClusterScorePlugin,
    FilterPlugin,
    Normalization,
    Reads,
    Refusal,
    ScorePlugin,
)
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot

NOWHERE = -np.inf
# With more changed columns than this, computing all at once is cheaper than asking one by one.
_REFRESH_LIMIT = 16

WeightedScore = tuple[ScorePlugin | ClusterScorePlugin, float]


if TYPE_CHECKING:
    from typing_extensions import TypeIs


def is_clusterwide(plugin: ScorePlugin | ClusterScorePlugin) -> TypeIs[ClusterScorePlugin]:
    """The same as an instance check, which for protocols takes tens of microseconds."""
    return hasattr(plugin, "score_among")


def normalize(raw: FloatArray, feasible: BoolArray, how: Normalization) -> FloatArray:
    """0-100 relative to the largest raw score among feasible nodes."""
    largest = float((raw * feasible).max(initial=0.0))
    if not largest:
        return np.full(len(raw), float(MAX_SCORE if how is Normalization.REVERSED else 0))
    scaled: FloatArray = raw * MAX_SCORE
    scaled /= largest
    np.floor(scaled, out=scaled)
    return np.subtract(MAX_SCORE, scaled, out=scaled) if how is Normalization.REVERSED else scaled


class Evaluation:
    """For one signature on one snapshot."""

    __slots__ = (
        "_base",
        "_base_row",
        "_changing",
        "_cluster_filters",
        "_cluster_scores",
        "_dynamic_filters",
        "_dynamic_scores",
        "_error",
        "_fixed",
        "_local",
        "_order",
        "_pinned_by",
        "_position",
        "_raw",
        "_snapshot",
        "_static_filters",
        "_static_mask",
        "_static_row",
        "_total_row",
        "_version",
        "feasible",
        "node_names",
        "rejected_by",
        "rejection",
        "total",
    )

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self._snapshot = snapshot
        self._version = -1
        self._position = 0
        self._error: FitError | None = None
        self.rejection = ""
        self.rejected_by = ""
        self.node_names: frozenset[str] | None = None

    # --- bringing up to date -------------------------------------------------------------------------------------

    def refresh(self, pod: PodInfo, filters: Sequence[FilterPlugin], scores: Sequence[WeightedScore]) -> None:
        """Make `feasible` and `total` true for the snapshot as it is now."""
        snapshot = self._snapshot
        if self._version == snapshot.static_version:
            position = snapshot.log_end
            if self._position == position:
                return
            changed = snapshot.changed_since(self._position)
            if changed is not None and (len(changed) == 1 or len(changed := list(set(changed))) <= _REFRESH_LIMIT):
                self._position = position
                self._error = None
                if not self.rejection:
                    self._refresh_columns(changed)
                return
        self._version = -1  # should a plugin raise, what is half made must not be taken for an answer
        self._rebuild(pod, filters, scores)
        self._version = snapshot.static_version
        self._position = snapshot.log_end

    def _rebuild(self, pod: PodInfo, filters: Sequence[FilterPlugin], scores: Sequence[WeightedScore]) -> None:
        snapshot = self._snapshot
        self._error = None
        self.rejection = ""
        self.node_names = cast("frozenset[str] | None", None)
        self._static_filters: list[tuple[FilterPlugin, Any]] = []
        self._cluster_filters: list[tuple[FilterPlugin, Any]] = []
        self._dynamic_filters: list[tuple[FilterPlugin, Any]] = []
        self._order = [plugin.name for plugin in filters]
        self._pinned_by: list[str] = []
        for plugin in filters:
            result = plugin.pre_filter(pod, snapshot)
            if result is None:
                continue
            if result.rejection:
                self.rejection, self.rejected_by = result.rejection, plugin.name
                self.feasible = np.zeros(snapshot.width, dtype=np.bool_)
                self.total = np.full(snapshot.width, NOWHERE)
                return
            if result.node_names is not None:
                self._pinned_by.append(plugin.name)
                pinned = self.node_names
                self.node_names = result.node_names if pinned is None else pinned & result.node_names
            if plugin.reads is Reads.NODE:
                self._static_filters.append((plugin, result.state))
            elif plugin.reads is Reads.PODS_OF_NODE:
                self._dynamic_filters.append((plugin, result.state))
            else:
                self._cluster_filters.append((plugin, result.state))
        mask = snapshot.exists[: snapshot.width].copy()
        if self.node_names is not None:
            mask &= self._pinned()
        for plugin, state in self._static_filters:
            mask &= plugin.filter(state, snapshot)
        self._static_mask = mask
        self._static_row = row_view(mask)
        feasible = mask.copy() if self._dynamic_filters else mask
        for plugin, state in self._dynamic_filters:
            feasible &= plugin.filter(state, snapshot)
        self._local = self.feasible = feasible
        self._score(pod, scores)

    def _pinned(self) -> BoolArray:
        mask = np.zeros(self._snapshot.width, dtype=np.bool_)
        for name in self.node_names or ():
            column = self._snapshot.column(name)
            if column is not None:
                mask[column] = True
        return mask

    def _score(self, pod: PodInfo, scores: Sequence[WeightedScore]) -> None:
        snapshot = self._snapshot
        self._dynamic_scores: list[tuple[float, ScorePlugin, Any]] = []
        self._cluster_scores: list[tuple[float, ClusterScorePlugin, Any]] = []
        self._raw: list[tuple[float, Normalization, FloatArray]] = []
        fixed: FloatArray | None = None
        for plugin, weight in scores:
            state = plugin.pre_score(pod, snapshot)
            if state is None:
                continue
            if is_clusterwide(plugin):
                self._cluster_scores.append((weight, plugin, state))
                continue
            if plugin.reads is Reads.PODS_OF_NODE:
                self._dynamic_scores.append((weight, plugin, state))
                continue
            raw = plugin.score(state, snapshot)
            if plugin.normalization is not Normalization.NONE:
                self._raw.append((weight, plugin.normalization, raw))
                continue
            if weight != 1.0:
                raw *= weight
            fixed = raw if fixed is None else np.add(fixed, raw, out=raw)
        self._fixed = fixed if fixed is not None else np.zeros(snapshot.width)
        self._changing: FloatArray | None = None
        for weight, plugin, state in self._dynamic_scores:
            values = plugin.score(state, snapshot)
            if weight != 1.0:
                values *= weight
            self._changing = values if self._changing is None else np.add(self._changing, values, out=self._changing)
        self._sum_up()

    def _sum_up(self) -> None:
        if self._cluster_filters:
            feasible = self._local.copy()
            for plugin, state in self._cluster_filters:
                feasible &= plugin.filter(state, self._snapshot)
            self.feasible = feasible
        self._sum_base()
        self._sum_total()

    def _sum_base(self) -> None:
        self._base = self._base_among(self.feasible)
        self._base_row = row_view(self._base)

    def _base_among(self, feasible: BoolArray) -> FloatArray:
        base = self._fixed
        for weight, how, raw in self._raw:
            scaled = normalize(raw, feasible, how)
            scaled *= weight
            base = np.add(base, scaled, out=scaled)
        return base

    def _sum_total(self) -> None:
        self.total = self._total_among(self._base, self.feasible)
        self._total_row = row_view(self.total)

    def _total_among(self, base: FloatArray, feasible: BoolArray) -> FloatArray:
        total = base.copy() if self._changing is None else base + self._changing
        for weight, plugin, state in self._cluster_scores:
            values = plugin.score_among(state, self._snapshot, feasible)
            values *= weight
            total += values
        np.copyto(total, NOWHERE, where=~feasible)
        return total

    def without(self, columns: Sequence[int]) -> FloatArray:
        """Totals as they were if these nodes had not passed the filters."""
        feasible = self.feasible.copy()
        feasible[list(columns)] = False
        return self._total_among(self._base_among(feasible), feasible)

    def _refresh_columns(self, columns: Sequence[int]) -> None:
        snapshot = self._snapshot
        if self._cluster_filters or self._cluster_scores:
            self._refresh_clusterwide(columns)
            return
        flipped = False
        total, base, static = self._total_row, self._base_row, self._static_row
        for column in columns:
            fits = static[column]
            if fits:
                for plugin, state in self._dynamic_filters:
                    if not plugin.filter_at(state, snapshot, column):
                        fits = False
                        break
            was = total[column] != NOWHERE
            if not fits and not was:
                continue
            changing = 0.0
            if fits:
                for weight, scorer, state in self._dynamic_scores:
                    changing += weight * scorer.score_at(state, snapshot, column)
            if self._changing is not None:
                self._changing[column] = changing
            if self._raw:
                flipped = flipped or fits != was
            if fits != was:
                self.feasible[column] = fits
            total[column] = base[column] + changing if fits else NOWHERE
        if flipped:
            self._sum_up()

    def _refresh_clusterwide(self, columns: Sequence[int]) -> None:
        """What changed on some nodes changes the answer for others: sum up anew, from kept parts."""
        snapshot = self._snapshot
        flipped = False
        for column in columns:
            fits = self._static_row[column] and all(
                plugin.filter_at(state, snapshot, column) for plugin, state in self._dynamic_filters
            )
            if fits and self._changing is not None:
                self._changing[column] = sum(
                    weight * scorer.score_at(state, snapshot, column) for weight, scorer, state in self._dynamic_scores
                )
            if bool(self._local[column]) is not bool(fits):
                flipped = True
                self._local[column] = fits
        if self._cluster_filters:
            self._sum_up()
            return
        if flipped:
            self._sum_base()
        self._sum_total()

    # --- answers -------------------------------------------------------------------------------------------------

    def best(self, total: FloatArray | None = None) -> IntArray:
        """Columns with the highest total; empty when no node is feasible."""
        total = self.total if total is None else total
        if not len(total):
            return np.empty(0, dtype=np.int64)
        highest = total[total.argmax()]
        if highest == NOWHERE:
            return np.empty(0, dtype=np.int64)
        ties: IntArray = (total == highest).nonzero()[0]
        return ties

    def error(self) -> FitError:
        """Why no node is feasible: each node is counted for the first filter that refused it."""
        if self._error is not None:
            return self._error
        snapshot = self._snapshot
        if self.rejection:
            everywhere = snapshot.exists[: snapshot.width].nonzero()[0]
            refusals = [Refusal(everywhere, (self.rejection,), False, self.rejected_by)]
            plugins = frozenset((self.rejected_by,))
        else:
            refusals = self._refusals()
            plugins = frozenset(refusal.plugin for refusal in refusals if refusal.plugin)
            plugins |= frozenset(self._pinned_by)
        self._error = FitError(snapshot.node_count, tuple(refusals), plugins, self.rejection)
        return self._error

    def active_filters(self) -> list[tuple[FilterPlugin, Any]]:
        """Filters that this kind of pod does not pass everywhere, with their state, in order."""
        active = {plugin.name: (plugin, state) for plugin, state in self._static_filters}
        active |= {plugin.name: (plugin, state) for plugin, state in (*self._dynamic_filters, *self._cluster_filters)}
        return [active[name] for name in self._order if name in active]

    def _refusals(self) -> list[Refusal]:
        snapshot = self._snapshot
        remaining = snapshot.exists[: snapshot.width].copy()
        refusals: list[Refusal] = []
        if self.node_names is not None:
            pinned = self._pinned()
            outside = (remaining & ~pinned).nonzero()[0]
            if len(outside):
                reason = f"node(s) didn't satisfy plugin(s) [{' '.join(sorted(self._pinned_by))}]"
                refusals.append(Refusal(outside, (reason,), False))
            remaining &= pinned
        for plugin, state in self.active_filters():
            passed = plugin.filter(state, snapshot)
            refused = (remaining & ~passed).nonzero()[0]
            if len(refused):
                for refusal in plugin.refusals(state, snapshot, refused):
                    refusals.append(Refusal(refusal.columns, refusal.reasons, refusal.resolvable, plugin.name))
                remaining &= passed
        return refusals

    def table(self, pod: PodInfo, scores: Sequence[WeightedScore], crowded: Sequence[Refusal]) -> VerdictTable:
        """Every node's reasons or scores by plugin, for explanations. `crowded`: further nodes that were refused."""
        snapshot = self._snapshot
        feasible = self.feasible.copy()
        for refusal in crowded:
            feasible[refusal.columns] = False
        plugins: list[str] = []
        rows: list[FloatArray] = []
        for plugin, weight in scores if feasible.any() else ():
            state = plugin.pre_score(pod, snapshot)
            if state is None:
                continue
            if is_clusterwide(plugin):
                raw = plugin.score_among(state, snapshot, feasible)
            else:
                raw = plugin.score(state, snapshot)
                if plugin.normalization is not Normalization.NONE:
                    raw = normalize(raw, feasible, plugin.normalization)
            plugins.append(plugin.name)
            rows.append(raw * weight)
        matrix = np.array(rows, dtype=np.float32).reshape(len(rows), snapshot.width)
        return VerdictTable(snapshot.names(), tuple(plugins), matrix, (*self.error().refusals, *crowded))
