"""What the cloud said in one pass, judged: groups whose numbers cannot be true take no part.

Owns asking the provider and remembering whose node is whose for a minute. A group that fails to answer is left as it
is; when the list of groups itself cannot be had, nothing is decided at all (ProviderError).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from api.models import core_v1
from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.options import GroupOptions
from cluster_autoscaler.provider import Instance, NodeGroup, NodeRef, Provider, ProviderError
from machinery import log
from machinery.clock import Clock
from machinery.log import kv

REMEMBERED: Final = 60.0  # cluster seconds that an answer about a node is good for
_log = log.get(__name__)


@dataclass(slots=True)
class GroupView:
    """A group that can be decided about."""

    group: NodeGroup
    target: int
    instances: list[Instance]
    options: GroupOptions = field(default_factory=GroupOptions)
    template: core_v1.Node | None = None

    @property
    def id(self) -> str:
        return self.group.id


@dataclass(slots=True)
class CloudView:
    """All groups that can be decided about; `troubles` says why others cannot. `group_of`: by name of the node."""

    groups: dict[str, GroupView] = field(default_factory=dict)
    group_of: dict[str, str] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)

    def nodes_of(self, group: str, nodes: Iterable[core_v1.Node]) -> list[core_v1.Node]:
        return [node for node in nodes if self.group_of.get(facts.name(node)) == group]


def implausible(group: NodeGroup, target: int) -> str:
    """Why these numbers cannot be true; "" when they can."""
    if not group.id:
        return "the group has no name"
    if group.min_size < 0 or group.max_size < group.min_size:
        return f"bounds {group.min_size}..{group.max_size} make no sense"
    if target < 0:
        return f"target size {target} is negative"
    return ""


class CloudReader:
    """Asks; one instance for the life of the process."""

    def __init__(self, provider: Provider, clock: Clock, defaults: GroupOptions) -> None:
        self._provider = provider
        self._clock = clock
        self._defaults = defaults
        self._owners: dict[tuple[str, str], tuple[float, str]] = {}

    async def read(self, nodes: list[core_v1.Node]) -> CloudView:
        """Raises ProviderError when nothing can be said."""
        await self._provider.refresh()
        view = CloudView()
        for group in await self._provider.node_groups():
            try:
                await self._read_group(group, view)
            except ProviderError as error:
                view.troubles[group.id] = f"{error.code}: {error}"
        for name, trouble in view.troubles.items():
            _log.warning("Left out node group", extra=kv(group=name, reason=trouble))
        await self._match(nodes, view)
        return view

    async def _read_group(self, group: NodeGroup, view: CloudView) -> None:
        target = await self._provider.target_size(group.id)
        trouble = implausible(group, target)
        if trouble:
            view.troubles[group.id] = trouble
            return
        instances = await self._provider.nodes(group.id)
        options = await self._provider.options(group.id, self._defaults)
        template: core_v1.Node | None = None
        try:
            template = await self._provider.template(group.id)
        except ProviderError as error:  # a real node may stand for it
            _log.debug("Got no template", extra=kv(group=group.id, error=error))
        view.groups[group.id] = GroupView(group, target, instances, options, template)

    async def _match(self, nodes: list[core_v1.Node], view: CloudView) -> None:
        by_instance = {each.id: name for name, group in view.groups.items() for each in group.instances if each.id}
        now = self._clock.monotonic()
        kept: dict[tuple[str, str], tuple[float, str]] = {}
        for node in nodes:
            name, provider_id = facts.name(node), facts.provider_id(node)
            owner = by_instance.get(provider_id)
            if owner is None:
                known = self._owners.get((name, provider_id))
                if known is None or now - known[0] > REMEMBERED:
                    try:
                        known = now, await self._provider.group_of(NodeRef.of(node))
                    except ProviderError as error:
                        _log.warning("Does not know whose node it is", extra=kv(node=name, error=error))
                        continue
                kept[(name, provider_id)] = known
                owner = known[1]
            if owner in view.groups:
                view.group_of[name] = owner
        self._owners = kept
