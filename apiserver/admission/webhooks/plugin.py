"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: the hooks are asked, in order or side by side.

Owns order, reinvocation, failure policies and dry runs. Mutating hooks run after the server's own plugins; when one has
changed an object, those plugins see it again, since what was added wants its defaults too.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from apiserver.admission.webhooks.call import Caller, CallError
from apiserver.admission.webhooks.review import SPOKEN, BadAnswer, Verdict, Write, denial, review_of, verdict_of
from apiserver.admission.webhooks.rules import Hook, hooks_of, never_asked, rule_matches, selects
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import Admission, Obj, Undo
from apiserver.registry.store import Registry
from machinery.errors import BadRequest, InternalError, StatusError

if TYPE_CHECKING:
    from api.resources import Resource

GROUP = "admissionregistration.k8s.io"


class Hooks:
    """The hooks of one kind of configuration, read again when a configuration changes."""

    def __init__(self, registry: Registry, plural: str, caller: Caller) -> None:
        self._registry = registry
        self._store = registry.resource(GROUP, "v1", plural)
        self._caller = caller
        self._known: tuple[tuple[int, int], tuple[Hook, ...]] = ((-1, 0), ())

    @property
    def none(self) -> bool:
        """Is nothing configured at all? The common case, asked on every write."""
        return not len(self._store.cache)

    def concerning(self, write: Write) -> list[Hook]:
        """The hooks to ask about a write, ordered by their configurations' names."""
        cache = self._store.cache
        state = (cache.modified, len(cache))
        if self._known[0] != state:
            found = tuple(hook for entry in self._store.entries() for hook in hooks_of(entry.decoded()))
            self._known = (state, found)
        if never_asked(write.resource):
            return []
        return [hook for hook in self._known[1] if self._wanted(hook, write)]

    def _wanted(self, hook: Hook, write: Write) -> bool:
        named = (write.op, write.resource, write.namespace, write.subresource)
        if not any(rule_matches(rule, *named) for rule in hook.rules):
            return False
        labels = namespace_labels(self._registry, write)
        return selects(hook.namespaces, hook.objects, labels, write.new, write.old)

    async def ask(self, hook: Hook, write: Write, *, mutating: bool) -> Verdict | None:
        """The verdict; None when there is none and that does not matter. Raises StatusError."""
        try:
            if hook.conditions and not _conditions_hold(self._registry, hook, write):
                return None
            if write.ctx.dry_run and not hook.safe_for_dry_run:
                raise BadRequest(f'admission webhook "{hook.name}" does not support dry run')
            version = next((each for each in hook.versions if each in SPOKEN), "")
            if not version:
                raise CallError("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
            review = review_of(write, version)
            raw = await self._caller.post(hook.client, msgspec.json.encode(review), hook.timeout)
            verdict = verdict_of(raw, version, review["request"]["uid"], mutating=mutating)
        except (CallError, BadAnswer) as error:
            if hook.ignores_failure:
                return None
            what = "failed to call webhook: " if isinstance(error, CallError) else "received invalid webhook response: "
            raise InternalError.of(f'failed calling webhook "{hook.name}": {what}{error}') from error
        for text in verdict.warnings:
            if text not in write.ctx.warnings:
                write.ctx.warnings.append(text)
        if not verdict.allowed:
            raise denial(hook.name, verdict.status)
        return verdict


def namespace_labels(registry: Registry, write: Write) -> Any:
    """Labels of the namespace that a write is in, or is about; None for other things without a namespace."""
    if write.resource.key() == ("", "v1", "namespaces"):
        return ((write.new or write.old or {}).get("metadata") or {}).get("labels") or {}
    if not write.namespace:
        return None
    entry = registry.resource("", "v1", "namespaces").peek("", write.namespace)
    return entry.labels if entry is not None else {}


def _conditions_hold(registry: Registry, hook: Hook, write: Write) -> bool:
    """Raises CallError when a condition cannot be evaluated and none is false."""
    from apiserver.admission.policies.expressions import ExpressionFailed, conditions_hold, values_of

    try:
        return conditions_hold(hook.conditions, values_of(registry, write))
    except ExpressionFailed as error:
        raise CallError(str(error)) from error


class MutatingWebhooks:
    """`before` are the plugins that look at an object again after a hook has changed it."""

    def __init__(self, registry: Registry, caller: Caller, before: Sequence[Admission]) -> None:
        self._registry = registry
        self._hooks = Hooks(registry, "mutatingwebhookconfigurations", caller)
        self._before = before

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
        if self._hooks.none:
            return
        write = Write(ctx, op, resource, namespace, name, new, old, subresource)
        hooks = self._hooks.concerning(write)
        if not hooks:
            return
        changed, again = False, list[Hook]()
        for hook in hooks:
            if await self._apply(hook, write):
                changed = True
                again += [each for each in hooks[: hooks.index(hook)] if each.reinvoked and each not in again]
        if not changed or new is None:
            return
        before = copy.deepcopy(new)
        for plugin in self._before:
            handles = getattr(plugin, "handles", None)
            if handles is None or handles(resource):
                await plugin.admit(ctx, op, resource, namespace, name, new, old, subresource)
        if new != before:
            again = [hook for hook in hooks if hook.reinvoked]
        for hook in again:
            await self._apply(hook, write)

    async def _apply(self, hook: Hook, write: Write) -> bool:
        """Ask a hook and carry its patch out; has it changed the object?"""
        verdict = await self._hooks.ask(hook, write, mutating=True)
        if verdict is None or not verdict.patch or write.new is None:
            return False
        from machinery import patch as patches

        new = write.new
        try:
            patched = patches.apply_json_patch(write.shown(new), verdict.patch)
            patched = self._formed(write, patched)
        except StatusError as error:
            raise InternalError.of(
                f'admission webhook "{hook.name}" sent an unusable patch: {error.message}'
            ) from error
        if patched == new:
            return False
        meta = new["metadata"]
        wanted = dict(patched["metadata"])  # a patch leaves alone, and shares, what it does not name
        new.clear()
        new.update(patched)
        # The write path holds the metadata it was given.
        meta.clear()
        meta.update(wanted)
        new["metadata"] = meta
        return True

    def _formed(self, write: Write, patched: Any) -> Obj:
        """The patched object in the kind's form, with defaults. Raises StatusError."""
        from api import schema
        from apiserver import fieldvalidation

        if not isinstance(patched, dict) or not isinstance(patched.get("metadata"), dict):
            raise BadRequest("the patched object must have metadata")
        resource = write.resource
        node = schema.for_kind(resource.group, resource.version, resource.kind)
        formed = fieldvalidation.accept_patched(patched, node, patch=None, directive="Ignore", warnings=[])
        strategy = self._registry.resource(*resource.key()).strategy.for_subresource(write.subresource)
        strategy.canonicalize(formed)
        strategy.default(formed)
        return formed


class ValidatingWebhooks:
    """All hooks are asked at once; the first refusal counts."""

    def __init__(self, registry: Registry, caller: Caller) -> None:
        self._hooks = Hooks(registry, "validatingwebhookconfigurations", caller)

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
        if self._hooks.none:
            return None
        write = Write(ctx, op, resource, namespace, name, new, old, subresource)
        hooks = self._hooks.concerning(write)
        if not hooks:
            return None
        try:
            async with asyncio.TaskGroup() as group:
                for hook in hooks:
                    group.create_task(self._hooks.ask(hook, write, mutating=False))
        except BaseExceptionGroup as group:
            errors = group.subgroup(StatusError)
            if errors is None:
                raise
            raise _first(errors) from None
        return None


def _first(group: BaseExceptionGroup[StatusError]) -> StatusError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
