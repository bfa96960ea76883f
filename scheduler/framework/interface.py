"""Extension points: what a plugin may implement, with upstream's names and order.

PreEnqueue, QueueSort, PreFilter, Filter, PostFilter, PreScore, Score, Reserve, Permit, PreBind, Bind, PostBind.
A filter answers for all nodes at once with a mask, a score with an array. A plugin that reads the pods of a node must
also answer for one column, which is how kept results are refreshed after a binding.
Plugins are pure except for PreBind and Bind, and hold no state of a pod: what PreFilter or PreScore computed is handed
back to them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from scheduler.framework.columns import BoolArray, FloatArray, IntArray
from scheduler.framework.events import Registration
from scheduler.framework.nominations import Nominations
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.preemption import Candidate
from scheduler.framework.snapshot import ClusterSnapshot

if TYPE_CHECKING:
    from scheduler.framework.decision import FitError

MAX_SCORE = 100


class Reads(enum.Enum):
    """What a plugin's answer for a node depends on: this decides when a kept answer is stale."""

    NODE = "node"  # the node's own facts: labels, taints, images
    PODS_OF_NODE = "pods of node"  # also the pods on that node; such a plugin answers for single columns too
    # Pods anywhere (affinity between pods, spreading): asked for all nodes after every change, with the state that
    # PreFilter made when the nodes last changed.
    CLUSTER = "cluster"


class Normalization(enum.Enum):
    """How raw scores become 0-100 among the nodes that passed the filters."""

    NONE = "none"
    LINEAR = "linear"  # the largest becomes 100
    REVERSED = "reversed"  # the largest becomes 0


class PreFilterResult(NamedTuple):
    """What a filter computed once for a pod.

    `node_names` narrows the choice to these nodes; `rejection` ends the attempt with this message for all nodes.
    """

    state: Any = None
    node_names: frozenset[str] | None = None
    rejection: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nodes refused for the same reasons. `resolvable`: removing other pods from the node could change it."""

    columns: IntArray
    reasons: tuple[str, ...]
    resolvable: bool = True
    plugin: str = ""


@dataclass(frozen=True, slots=True)
class PostFilterResult:
    """What is to be done about a pod that fits nowhere. `message` is appended to the failure's message.

    `nominated_node`: the node it is promised once its victims are gone; "" takes an earlier promise back, None leaves
    it as it is. `displaced` are pods of lower priority whose promise of that node is void.
    """

    message: str = ""
    nominated_node: str | None = None
    victims: tuple[PodInfo, ...] = ()
    displaced: tuple[PodInfo, ...] = ()
    candidates: tuple[Candidate, ...] = ()  # what was chosen among, for those who have a say in it


@runtime_checkable
class Plugin(Protocol):
    """Every plugin has its upstream name and says which events could turn its refusal."""

    @property
    def name(self) -> str: ...

    def registrations(self) -> Sequence[Registration]:
        """Events that may make a pod schedulable which this plugin refused."""


@runtime_checkable
class SignPlugin(Protocol):
    """Any plugin that filters or scores: what of a pod its answers depend on."""

    def sign(self, pod: PodInfo) -> Any:
        """JSON-encodable; pods with equal signatures of all plugins share kept results."""


@runtime_checkable
class PreEnqueuePlugin(Plugin, Protocol):
    def pre_enqueue(self, pod: PodInfo) -> str:
        """ "" when the pod may enter the active queue, else why not."""


@runtime_checkable
class QueueSortPlugin(Plugin, Protocol):
    def sort_key(self, pod: PodInfo, timestamp: float) -> Any:
        """The pod with the smallest key is scheduled first."""


@runtime_checkable
class FilterPlugin(Plugin, SignPlugin, Protocol):
    @property
    def reads(self) -> Reads: ...

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        """None: this pod passes everywhere, do not ask."""

    def filter(self, state: Any, snapshot: ClusterSnapshot) -> BoolArray:
        """True for nodes that pass; as long as the snapshot is wide."""

    def filter_at(self, state: Any, snapshot: ClusterSnapshot, column: int) -> bool:
        """The same for one node (asked of plugins that read PODS_OF_NODE)."""

    def refusals(self, state: Any, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        """Why these nodes (a subset of those that did not pass) were refused."""


@runtime_checkable
class FreeingFilterPlugin(FilterPlugin, Protocol):
    """A filter that can say for many nodes at once whether freeing room would be enough."""

    def refusals_if_freed(
        self, state: Any, snapshot: ClusterSnapshot, columns: IntArray, freed: IntArray
    ) -> Iterable[Refusal]:
        """Which of the columns would still be refused, with `freed` (rows as in the snapshot) no longer taken."""


@runtime_checkable
class RoomFilterPlugin(FreeingFilterPlugin, Protocol):
    """A filter that asks for amounts only: of what is free on a node, row by row of the snapshot."""

    def room_needed(self, state: Any) -> Sequence[tuple[int, int, str]]:
        """(row, amount, resource); a node passes when it has all of them."""


class Attempt(NamedTuple):
    """What a PostFilter plugin may ask besides the snapshot."""

    filters: Sequence[FilterPlugin]
    nominations: Nominations


@runtime_checkable
class PostFilterPlugin(Plugin, Protocol):
    def post_filter(
        self, pod: PodInfo, snapshot: ClusterSnapshot, error: FitError, attempt: Attempt
    ) -> PostFilterResult | None:
        """Called when no node passed. May change the snapshot between `fork` and `revert`."""


@runtime_checkable
class ScorePlugin(Plugin, SignPlugin, Protocol):
    @property
    def reads(self) -> Reads: ...

    @property
    def normalization(self) -> Normalization: ...

    def pre_score(self, pod: PodInfo, snapshot: ClusterSnapshot) -> Any | None:
        """None: all nodes are equal to this plugin, do not ask."""

    def score(self, state: Any, snapshot: ClusterSnapshot) -> FloatArray:
        """A new array, whole numbers, as long as the snapshot is wide."""

    def score_at(self, state: Any, snapshot: ClusterSnapshot, column: int) -> float:
        """The same for one node (asked of plugins that read PODS_OF_NODE)."""


@runtime_checkable
class ClusterScorePlugin(Plugin, SignPlugin, Protocol):
    """A score that depends on pods anywhere and on which nodes passed the filters; it normalizes by itself."""

    def pre_score(self, pod: PodInfo, snapshot: ClusterSnapshot) -> Any | None:
        """None: all nodes are equal to this plugin, do not ask. Asked again when something about nodes changed."""

    def score_among(self, state: Any, snapshot: ClusterSnapshot, feasible: BoolArray) -> FloatArray:
        """A new array of whole numbers from 0 to 100; what it says of nodes that are not feasible is ignored."""


@runtime_checkable
class ReservePlugin(Plugin, Protocol):
    def reserve(self, pod: PodInfo, node: str, snapshot: ClusterSnapshot) -> str:
        """Claim what the pod needs besides room on the node; "" or why it failed."""

    def unreserve(self, pod: PodInfo, node: str, snapshot: ClusterSnapshot) -> None:
        """Give it back. Must be harmless when nothing was claimed."""


class Permission(NamedTuple):
    """A Permit plugin's answer: `refusal` says why not; `wait` holds the pod back for so many cluster seconds at most,
    until the plugin lets it go through the framework's `waiting` pods."""

    refusal: str = ""
    wait: float = 0.0


ALLOWED = Permission()


@runtime_checkable
class PermitPlugin(Plugin, Protocol):
    def permit(self, pod: PodInfo, node: str) -> Permission: ...


@runtime_checkable
class PreBindPlugin(Plugin, Protocol):
    def pre_bind_pre_flight(self, pod: PodInfo, node: str) -> bool:
        """Whether there is anything to do for this pod."""

    async def pre_bind(self, pod: PodInfo, node: str, snapshot: ClusterSnapshot) -> None:
        """Do what must be done before binding, however long it takes; raises StatusError."""


@runtime_checkable
class BindPlugin(Plugin, Protocol):
    async def bind(self, pod: PodInfo, node: str) -> None:
        """Bind the pod; raises StatusError."""


@runtime_checkable
class PostBindPlugin(Plugin, Protocol):
    def post_bind(self, pod: PodInfo, node: str) -> None:
        """Told after a successful binding."""
