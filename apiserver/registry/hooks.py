"""The hooks through which admission sees writes. Owns the protocols and which plugins a resource has to ask.

Plugins live in `apiserver.admission`; called by the registry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from apiserver.registry.admission_times import ADMIT, VALIDATE, AdmissionTimes
from apiserver.registry.context import RequestContext
from machinery.errors import StatusError

if TYPE_CHECKING:
    from api.resources import Resource

CREATE = "CREATE"
UPDATE = "UPDATE"
DELETE = "DELETE"
CONNECT = "CONNECT"
"""A stream or a proxy; `new` is its options."""

Obj = dict[str, Any]


class Admission(Protocol):
    """Looks at every write after defaulting and before validation; may change `new` in place or raise StatusError."""

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
        """`new` is None for deletions, `old` for creations; `name` may be empty until generateName is resolved."""


Undo = Callable[[], Awaitable[None]]
"""Takes back what a check has reserved, when the write that it allowed does not happen."""


class Check(Protocol):
    """An admission plugin that also judges: called after validation, when the object is as it will be stored."""

    async def check(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> Undo | None:
        """Must not change anything it is given; raises StatusError to refuse."""


Plugin = Admission | Check


class PluginList(list[Plugin]):
    """The plugins of one API server, and how long they take."""

    def __init__(self, plugins: Iterable[Plugin] = ()) -> None:
        super().__init__(plugins)
        self.times = AdmissionTimes()


class Plugins:
    """The plugins that one resource has to ask, which are timed."""

    def __init__(self, admit: Sequence[Admission], check: Sequence[Check], times: AdmissionTimes) -> None:
        self._times = times
        self._admit = [(each, times.plugin_rows(_name(each), ADMIT)) for each in admit]
        self._check = [(each, times.plugin_rows(_name(each), VALIDATE)) for each in check]
        self._steps = times.step_rows(ADMIT), times.step_rows(VALIDATE)

    async def admit(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        sub: str,
    ) -> None:
        """Raises what refuses the write."""
        began = start = perf_counter()
        add = self._times.controllers.add
        try:
            for plugin, rows in self._admit:
                await plugin.admit(ctx, op, resource, namespace, name, new, old, sub)
                began, last = perf_counter(), began
                add(rows[op], began - last)
        except StatusError:
            self._refused(plugin, op, ADMIT, perf_counter() - began, perf_counter() - start)
            raise
        self._times.steps.add(self._steps[0][op], began - start)

    async def check(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        sub: str,
        undo: list[Undo],
    ) -> None:
        """Raises what refuses the write; `undo` gets what has to be taken back when it fails."""
        began = start = perf_counter()
        add = self._times.controllers.add
        try:
            for plugin, rows in self._check:
                reserved = await plugin.check(ctx, op, resource, namespace, name, new, old, sub)
                if reserved is not None:
                    undo.append(reserved)
                began, last = perf_counter(), began
                add(rows[op], began - last)
        except StatusError:
            self._refused(plugin, op, VALIDATE, perf_counter() - began, perf_counter() - start)
            raise
        self._times.steps.add(self._steps[1][op], began - start)

    def _refused(self, plugin: Plugin, op: str, step: str, own: float, whole: float) -> None:
        self._times.controllers.observe((_name(plugin), op, "true", step), own)
        self._times.steps.observe((op, "true", step), whole)


def _name(plugin: Plugin) -> str:
    """Upstream's name of a plugin: mostly that of its class."""
    return str(getattr(plugin, "name", "") or type(plugin).__name__)


def plugins_for(resource: Resource, plugins: Iterable[Plugin]) -> Plugins:
    """A plugin may tell by `handles(resource)` that a resource is none of its business; then it costs nothing."""
    asked: list[Any] = [each for each in plugins if not hasattr(each, "handles") or each.handles(resource)]
    return Plugins(
        [each for each in asked if hasattr(each, "admit")],
        [each for each in asked if hasattr(each, "check")],
        plugins.times if isinstance(plugins, PluginList) else AdmissionTimes(),
    )
