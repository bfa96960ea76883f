"""Mutating policies and webhooks, and who looks at an object again after they have changed it.

Owns the order: the server's own plugins, policies, webhooks; after a change the server's own plugins once more (what
was added wants its defaults too), then those policies and webhooks that ask for it. Never a third time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from apiserver.admission.write import Write, write_of
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import Admission, Obj
from apiserver.registry.store import Registry

if TYPE_CHECKING:
    from api.resources import Resource


class Round(Protocol):
    """A phase's part in one write."""

    async def run(self) -> bool:
        """Mutate; has the object changed? Raises StatusError."""

    async def run_again(self) -> bool:
        """The same for whoever wants to be asked again."""


class Phase(Protocol):
    """Policies, or webhooks."""

    @property
    def none(self) -> bool:
        """Is nothing configured at all? The common case, asked on every write."""

    def begin(self, write: Write) -> Round: ...


class Mutations:
    """`before` are the plugins that look at an object again."""

    name = "MutatingAdmissionWebhook"

    def __init__(self, registry: Registry, before: Sequence[Admission], phases: Sequence[Phase]) -> None:
        self._registry = registry
        self._before = before
        self._phases = phases

    async def admit(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> None:
        active = [phase for phase in self._phases if not phase.none]
        if not active:
            return
        write = write_of(self._registry, ctx, op, resource, namespace, name, new, old, subresource)
        rounds = [phase.begin(write) for phase in active]
        changed = False
        for each in rounds:
            changed = await each.run() or changed
        if not changed or new is None:
            return
        for plugin in self._before:
            handles = getattr(plugin, "handles", None)
            if handles is None or handles(resource):
                await plugin.admit(ctx, op, resource, namespace, name, new, old, subresource)
        for each in rounds:
            await each.run_again()
