"""One profile's plugins, run in order over a snapshot.

Decides and never acts: `schedule` answers for one pod; reserving, binding and requeueing are the scheduler's work.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from scheduler.framework.columns import FloatArray
from scheduler.framework.decision import Decision, FitError, NodeVerdict, VerdictTable
from scheduler.framework.evaluation import Evaluation, WeightedScore
from scheduler.framework.events import ClusterEvent, Registration
from scheduler.framework.interface import (
    Attempt,
    BindPlugin,
    ClusterScorePlugin,
    FilterPlugin,
    PermitPlugin,
    Plugin,
    PostBindPlugin,
    PostFilterPlugin,
    PreBindPlugin,
    PreEnqueuePlugin,
    QueueSortPlugin,
    Refusal,
    ReservePlugin,
    ScorePlugin,
    SignPlugin,
)
from scheduler.framework.node_check import NodeCheck
from scheduler.framework.nominations import Nominations
from scheduler.framework.pod_info import DEFAULT_SCHEDULER, PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.waiting import NotReserved, Rejected, WaitingPod, WaitingPods

# Kept results take about 50 bytes per node each; these bounds keep all of them under a few MiB.
_KEPT_BYTES = 4 << 20
_KEPT_MOST = 256
_BYTES_PER_NODE = 50

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """A plugin in a profile. The weight counts for plugins that score; `points` limits it to some extension points
    (PreFilter and PreScore go with Filter and Score)."""

    plugin: Plugin
    weight: float = 1.0
    points: frozenset[str] | None = None

    def at(self, point: str) -> bool:
        return self.points is None or point in self.points


class Framework:
    """The plugins of one profile, sorted into extension points by what they implement."""

    def __init__(
        self,
        entries: Iterable[PluginEntry],
        *,
        name: str = DEFAULT_SCHEDULER,
        rng: random.Random | None = None,
        nominations: Nominations | None = None,
    ) -> None:
        entries = list(entries)
        plugins = [entry.plugin for entry in entries]

        def at(point: str) -> list[Plugin]:
            return [entry.plugin for entry in entries if entry.at(point)]

        self.name = name
        self.nominations = nominations if nominations is not None else Nominations()
        self.waiting = WaitingPods()
        self._rng = rng if rng is not None else random.Random(0)
        self.pre_enqueue = [plugin for plugin in at("preEnqueue") if isinstance(plugin, PreEnqueuePlugin)]
        sorts = [plugin for plugin in at("queueSort") if isinstance(plugin, QueueSortPlugin)]
        if len(sorts) != 1:
            raise ValueError(f"a profile has exactly one QueueSort plugin, {name} has {len(sorts)}")
        self.queue_sort: QueueSortPlugin = sorts[0]
        self.filters = [plugin for plugin in at("filter") if isinstance(plugin, FilterPlugin)]
        self.post_filters = [plugin for plugin in at("postFilter") if isinstance(plugin, PostFilterPlugin)]
        self.scores: list[WeightedScore] = [
            (entry.plugin, entry.weight)
            for entry in entries
            if entry.at("score") and isinstance(entry.plugin, (ScorePlugin, ClusterScorePlugin))
        ]
        self.reserve = [plugin for plugin in at("reserve") if isinstance(plugin, ReservePlugin)]
        self.permit = [plugin for plugin in at("permit") if isinstance(plugin, PermitPlugin)]
        self.pre_bind = [plugin for plugin in at("preBind") if isinstance(plugin, PreBindPlugin)]
        self.bind = [plugin for plugin in at("bind") if isinstance(plugin, BindPlugin)]
        self.post_bind = [plugin for plugin in at("postBind") if isinstance(plugin, PostBindPlugin)]
        self._registrations: dict[str, Sequence[Registration]] = {
            plugin.name: tuple(plugin.registrations()) for plugin in plugins
        }
        self._signers = [plugin for plugin in plugins if isinstance(plugin, SignPlugin)]
        self._kept: OrderedDict[bytes, Evaluation] = OrderedDict()
        self._kept_for: ClusterSnapshot | None = None

    # --- deciding ------------------------------------------------------------------------------------------------

    def schedule(
        self,
        pod: PodInfo,
        snapshot: ClusterSnapshot,
        among: Mapping[str, float] | None = None,
        refusals: Sequence[Refusal] = (),
    ) -> Decision:
        """The best node for a pod, ties broken at random; or why there is none.

        `among`: only these nodes, with so many points more each; `refusals`: why not the others.
        """
        evaluation = self._evaluate(pod, snapshot)
        crowded: dict[int, Refusal] = {}
        outside = self._outside(among, snapshot)
        if len(self.nominations):
            crowded = self._crowded(pod, snapshot, evaluation)
            promised = snapshot.column(self.nominations.node_of(pod.uid))
            barred = promised is None or promised in crowded or promised in outside
            if promised is not None and not barred and evaluation.feasible[promised]:
                return Decision(snapshot.name_at(promised), 1, float(evaluation.total[promised]))
        left_out = [*crowded, *outside]
        total = evaluation.without(left_out) if left_out else evaluation.total
        if among is not None:
            total = total + self._points(among, snapshot)
        best = evaluation.best(total)
        count = len(best)
        if not count:
            return Decision(error=self._fail(pod, snapshot, evaluation, (*crowded.values(), *refusals)))
        column = int(best[0] if count == 1 else best[self._rng.randrange(count)])
        return Decision(snapshot.name_at(column), count, float(total[column]))

    @staticmethod
    def _outside(among: Mapping[str, float] | None, snapshot: ClusterSnapshot) -> list[int]:
        if among is None:
            return []
        return [column for column, name in enumerate(snapshot.names()) if name and name not in among]

    @staticmethod
    def _points(among: Mapping[str, float], snapshot: ClusterSnapshot) -> FloatArray:
        points: FloatArray = np.zeros(snapshot.width)
        for name, more in among.items():
            column = snapshot.column(name)
            if column is not None:
                points[column] = more
        return points

    def feasible(self, pod: PodInfo, snapshot: ClusterSnapshot) -> list[str]:
        """The names of all nodes that the pod could be put on."""
        evaluation = self._evaluate(pod, snapshot)
        crowded = self._crowded(pod, snapshot, evaluation) if len(self.nominations) else {}
        columns = evaluation.feasible.nonzero()[0].tolist()
        return [snapshot.name_at(column) for column in columns if column not in crowded]

    def evaluate(self, pod: PodInfo, snapshot: ClusterSnapshot) -> Evaluation:
        """The kept answer about all nodes, for simulations of many pods: to be read before the snapshot changes."""
        return self._evaluate(pod, snapshot)

    def _crowded(self, pod: PodInfo, snapshot: ClusterSnapshot, evaluation: Evaluation) -> dict[int, Refusal]:
        """Nodes that pass the filters, but not beside the pods that were promised them."""
        ahead = self.nominations.ahead_of(pod)
        columns = [snapshot.column(name) for name in ahead]
        wanted = [column for column in columns if column is not None and evaluation.feasible[column]]
        if not wanted:
            return {}
        check = NodeCheck(self.filters, pod, snapshot, ahead)
        refusals = {column: check.crowded_out(column) for column in wanted}
        return {column: refusal for column, refusal in refusals.items() if refusal is not None}

    def table(self, pod: PodInfo, snapshot: ClusterSnapshot) -> VerdictTable:
        """Every node's verdict and scores as of now, compact."""
        evaluation = self._evaluate(pod, snapshot)
        crowded = self._crowded(pod, snapshot, evaluation) if len(self.nominations) else {}
        return evaluation.table(pod, self.scores, tuple(crowded.values()))

    def explain(self, pod: PodInfo, snapshot: ClusterSnapshot) -> list[NodeVerdict]:
        """The same, one by one."""
        return self.table(pod, snapshot).verdicts()

    def forget(self) -> None:
        """Drop all kept results (benchmarks; nothing else needs it)."""
        self._kept.clear()

    def signature(self, pod: PodInfo) -> bytes:
        """What the plugins' answers depend on."""
        if pod.signature is None:
            pod.signature = _encode([plugin.sign(pod) for plugin in self._signers])
        return pod.signature

    def _evaluate(self, pod: PodInfo, snapshot: ClusterSnapshot) -> Evaluation:
        if snapshot is not self._kept_for:
            self._kept.clear()
            self._kept_for = snapshot
        signature = self.signature(pod)
        evaluation = self._kept.get(signature)
        if evaluation is None:
            evaluation = Evaluation(snapshot)
            evaluation.refresh(pod, self.filters, self.scores)
            # A pod that names its node (a DaemonSet's) is one of a kind: keeping its answer would only push out others.
            # Neither is that of a pod with claims of its own, and it would be stale whenever one of them is bound.
            if evaluation.node_names is None and not pod.claims:
                self._kept[signature] = evaluation
                room = _KEPT_BYTES // (_BYTES_PER_NODE * (snapshot.width + 1))
                while len(self._kept) > max(4, min(room, _KEPT_MOST)):
                    self._kept.popitem(last=False)
            return evaluation
        self._kept.move_to_end(signature)
        evaluation.refresh(pod, self.filters, self.scores)
        return evaluation

    def _fail(
        self, pod: PodInfo, snapshot: ClusterSnapshot, evaluation: Evaluation, crowded: Iterable[Refusal]
    ) -> FitError:
        found = evaluation.error()
        refusals = (*found.refusals, *crowded)
        plugins = found.plugins | {refusal.plugin for refusal in crowded}
        error = FitError(found.node_count, refusals, plugins, found.rejection)
        if not error.node_count:
            # Upstream does not try preemption without nodes, and any plugin's node event may help.
            error.plugins = frozenset(plugin.name for plugin in self.filters)
            return error
        messages = []
        attempt = Attempt(self.filters, self.nominations)
        for plugin in self.post_filters:
            result = plugin.post_filter(pod, snapshot, error, attempt)
            if result is None:
                continue
            if result.message:
                messages.append(result.message)
            error.post = result
            if result.nominated_node:
                break
        error.post_filter_message = ", ".join(messages)
        return error

    # --- after the decision --------------------------------------------------------------------------------------

    def claim(self, pod: PodInfo, node: str, snapshot: ClusterSnapshot) -> WaitingPod | None:
        """Reserve and Permit; a pod that some plugin holds back is returned. Raises NotReserved when something could
        not be reserved and Rejected when a plugin does not permit it; then everything reserved is given back."""
        try:
            for reserving in self.reserve:
                refused = reserving.reserve(pod, node, snapshot)
                if refused:
                    raise NotReserved(f'running Reserve plugin "{reserving.name}": {refused}')
            holds: dict[str, float] = {}
            for permitting in self.permit:
                answer = permitting.permit(pod, node)
                if answer.refusal:
                    raise Rejected(permitting.name, answer.refusal)
                if answer.wait > 0:
                    holds[permitting.name] = answer.wait
        except (NotReserved, Rejected):
            self.release(pod, node, snapshot)
            raise
        if not holds:
            return None
        held = WaitingPod(pod, node, holds)
        self.waiting.add(held)
        return held

    def release(self, pod: PodInfo, node: str, snapshot: ClusterSnapshot) -> None:
        """Give back what was reserved, the last first."""
        self.waiting.remove(pod.uid)
        for plugin in reversed(self.reserve):
            plugin.unreserve(pod, node, snapshot)

    # --- queueing ------------------------------------------------------------------------------------------------

    def gate(self, pod: PodInfo) -> tuple[str, str]:
        """(plugin, message) of the first plugin that keeps the pod out of the active queue, or two empty texts."""
        for plugin in self.pre_enqueue:
            message = plugin.pre_enqueue(pod)
            if message:
                return plugin.name, message
        return "", ""

    def listens(self, event: ClusterEvent) -> bool:
        """Whether any plugin wants to hear of such events."""
        return any(
            event.resource is registration.resource and event.action & registration.actions
            for registrations in self._registrations.values()
            for registration in registrations
        )

    def may_help(self, pod: PodInfo, plugins: Iterable[str], event: ClusterEvent) -> bool:
        """Whether the event could turn the refusal of any of these plugins."""
        return any(
            registration.may_help(pod, event)
            for plugin in plugins
            for registration in self._registrations.get(plugin, ())
        )
