"""Admission of questions: reviews of rights and identities, which have no store but pass hooks like every other create.

Owns which plugins a review has to ask. Called by the application for what is answered at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, Obj, Plugin, Plugins, Undo, plugins_for
from apiserver.registry.writer import take_back

if TYPE_CHECKING:
    from api.resources import Resource


class Questions:
    """All reviews of one API server."""

    def __init__(self, plugins: list[Plugin]) -> None:
        self._plugins = plugins
        self._asked: dict[tuple[str, str, str], tuple[int, Plugins | None]] = {}

    async def admit(self, ctx: RequestContext, resource: Resource, namespace: str, name: str, body: Obj) -> None:
        """Mutates the body in place. Raises StatusError."""
        count, plugins = self._asked.get(resource.key(), (-1, None))
        if plugins is None or count != len(self._plugins):  # the application appends its plugins one after the other
            plugins = plugins_for(resource, self._plugins)
            self._asked[resource.key()] = len(self._plugins), plugins
        await plugins.admit(ctx, CREATE, resource, namespace, name, body, None, "")
        undo: list[Undo] = []
        try:
            await plugins.check(ctx, CREATE, resource, namespace, name, body, None, "", undo)
        finally:
            await take_back(undo)  # nothing comes to exist
