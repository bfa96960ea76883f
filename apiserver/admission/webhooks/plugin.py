"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: the hooks are asked, in order or side by side.

Owns who is asked, failure policies, dry runs and what verdicts do. When mutating hooks run again is
`admission.mutation`'s.
"""

from __future__ import annotations

import asyncio
import copy
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from apiserver.admission.forming import take
from apiserver.admission.matching import chosen_version, never_asked, selects
from apiserver.admission.webhooks.call import Caller, CallError
from apiserver.admission.webhooks.hooks import Hook, hooks_of
from apiserver.admission.webhooks.review import SPOKEN, BadAnswer, Verdict, denial, review_of, verdict_of
from apiserver.admission.write import Write, in_version, namespace_labels, write_of
from apiserver.audit.record import PATCHES
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import Obj, Undo
from apiserver.registry.store import Registry
from machinery.errors import BadRequest, InternalError, StatusError

if TYPE_CHECKING:
    from api.resources import Resource
    from apiserver.admission.policies.expressions import Judge

GROUP = "admissionregistration.k8s.io"
MUTATION = "mutation.webhook.admission.k8s.io"
"""Of annotations in the audit log: which hook was asked in which round, and whether it has changed the object."""
PATCH = PATCHES.rstrip("/")
"""The same of what it has changed; told only where bodies are told."""


class Asked(NamedTuple):
    """A hook that a write concerns, and the version in which it wants to see it."""

    hook: Hook
    seen: Resource


class Hooks:
    """The hooks of one kind of configuration, read again when a configuration changes."""

    def __init__(self, registry: Registry, plural: str, caller: Caller, judge: Judge) -> None:
        self._registry = registry
        self._judge = judge
        self._store = registry.resource(GROUP, "v1", plural)
        self._caller = caller
        self._known: tuple[tuple[int, int], tuple[Hook, ...]] = ((-1, 0), ())

    @property
    def none(self) -> bool:
        """Is nothing configured at all? The common case, asked on every write."""
        return not len(self._store.cache)

    def concerning(self, write: Write) -> list[Asked]:
        """The hooks to ask about a write, ordered by their configurations' names."""
        cache = self._store.cache
        state = (cache.modified, len(cache))
        if self._known[0] != state:
            found = tuple(hook for entry in self._store.entries() for hook in hooks_of(entry.decoded()))
            self._known = (state, found)
        if never_asked(write.resource):
            return []
        asked = ((hook, self._wanted(hook, write)) for hook in self._known[1])
        return [Asked(hook, seen) for hook, seen in asked if seen is not None]

    def _wanted(self, hook: Hook, write: Write) -> Resource | None:
        seen = chosen_version(self._registry, hook.rules, hook.match_policy, write, lambda rule: True)
        if seen is None:
            return None
        labels = namespace_labels(self._registry, write)
        return seen if selects(hook.namespaces, hook.objects, labels, write.new, write.old) else None

    async def ask(self, asked: Asked, write: Write, *, mutating: bool) -> tuple[Verdict, Any] | None:
        """The verdict, and the object as the hook has seen it; None when there is none and that does not matter.

        Raises StatusError.
        """
        hook, seen = asked
        began: float | None = None
        step = "admit" if mutating else "validating"
        times = self._registry.admission.times
        try:
            new, old = write.shown(write.new), write.shown(write.old)
            if seen is not write.resource:
                new = await in_version(self._registry, new, write.resource, seen)
                old = await in_version(self._registry, old, write.resource, seen)
            if hook.conditions and not self._conditions_hold(hook, write, seen=seen, new=new, old=old):
                return None
            if write.ctx.dry_run and not hook.safe_for_dry_run:
                raise BadRequest(f'admission webhook "{hook.name}" does not support dry run')
            version = next((each for each in hook.versions if each in SPOKEN), "")
            if not version:
                raise CallError("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
            review = review_of(write, version, seen=seen, new=new, old=old)
            began = perf_counter()
            raw = await self._caller.post(hook.client, msgspec.json.encode(review), hook.timeout)
            verdict = verdict_of(raw, version, review["request"]["uid"], mutating=mutating)
        except (CallError, BadAnswer) as error:
            took = perf_counter() - began if began is not None else 0.0
            ignored = hook.ignores_failure
            times.webhook_answered(hook.name, write.op, step, took, 503, "calling_webhook_error", ignored=ignored)
            if ignored:
                return None
            what = "failed to call webhook: " if isinstance(error, CallError) else "received invalid webhook response: "
            raise InternalError.of(f'failed calling webhook "{hook.name}": {what}{error}') from error
        for text in verdict.warnings:
            if text not in write.ctx.warnings:
                write.ctx.warnings.append(text)
        for key, text in verdict.annotations.items():
            write.ctx.annotations[f"{hook.name}/{key}"] = text
        refusal = None if verdict.allowed else denial(hook.name, verdict.status)
        code = refusal.code if refusal is not None else 200
        times.webhook_answered(hook.name, write.op, step, perf_counter() - began, code)
        if refusal is not None:
            raise refusal
        return verdict, new

    def _conditions_hold(self, hook: Hook, write: Write, **seen: Any) -> bool:
        """Raises CallError when a condition cannot be evaluated and none is false."""
        from apiserver.admission.policies.expressions import ExpressionFailed, conditions_hold

        try:
            return conditions_hold(hook.conditions, self._judge.values_of(write, **seen))
        except ExpressionFailed as error:
            raise CallError(str(error)) from error


class MutatingWebhooks:
    """Asked one after the other; each sees what those before it have made."""

    def __init__(self, registry: Registry, caller: Caller, judge: Judge) -> None:
        self._registry = registry
        self._hooks = Hooks(registry, "mutatingwebhookconfigurations", caller, judge)

    @property
    def none(self) -> bool:
        return self._hooks.none

    def begin(self, write: Write) -> WebhookRound:
        """The hooks' part in one write."""
        return WebhookRound(self._registry, self._hooks, write)


class WebhookRound:
    """The mutating hooks of one write."""

    def __init__(self, registry: Registry, hooks: Hooks, write: Write) -> None:
        self._registry = registry
        self._hooks = hooks
        self._write = write
        self._asked: list[Asked] = []
        self._again: list[Asked] = []
        self._left: Obj | None = None

    async def run(self) -> bool:
        """Ask every hook; has one changed the object?"""
        changed = False
        self._asked = self._hooks.concerning(self._write)
        for index, asked in enumerate(self._asked):
            if await self._apply(asked, 0):
                changed = True
                earlier = (each for each in self._asked[:index] if each.hook.reinvoked)
                self._again += [each for each in earlier if each not in self._again]
        self._left = copy.deepcopy(self._write.new) if self._asked else None
        return changed

    async def run_again(self) -> bool:
        """Ask those again that want it and have not seen the object as it is now."""
        if self._left is not None and self._left != self._write.new:
            self._again = [each for each in self._asked if each.hook.reinvoked]
        changed = False
        for asked in self._again:
            changed = await self._apply(asked, 1) or changed
        return changed

    async def _apply(self, asked: Asked, turn: int) -> bool:
        """Ask a hook and carry its patch out; has it changed the object?"""
        answer = await self._hooks.ask(asked, self._write, mutating=True)
        if answer is None:
            return False
        verdict, shown = answer
        mutated = bool(verdict.patch) and self._write.new is not None and await self._patch(asked, verdict, shown)
        told = {"configuration": asked.hook.configuration, "webhook": asked.hook.name, "mutated": mutated}
        place = f"round_{turn}_index_{self._asked.index(asked)}"
        self._write.ctx.annotations[f"{MUTATION}/{place}"] = msgspec.json.encode(told).decode()
        if mutated:
            del told["mutated"]
            carried = {**told, "patch": verdict.patch, "patchType": "JSONPatch"}
            self._write.ctx.annotations[f"{PATCH}/{place}"] = msgspec.json.encode(carried).decode()
        return mutated

    async def _patch(self, asked: Asked, verdict: Verdict, shown: Any) -> bool:
        from machinery import patch as patches

        try:
            patched = patches.apply_json_patch(copy.deepcopy(shown), verdict.patch)
            return await take(self._registry, self._write, patched, asked.seen)
        except StatusError as error:
            raise InternalError.of(
                f'admission webhook "{asked.hook.name}" sent an unusable patch: {error.message}'
            ) from error


class ValidatingWebhooks:
    """All hooks are asked at once; the first refusal counts."""

    name = "ValidatingAdmissionWebhook"

    def __init__(self, registry: Registry, caller: Caller, judge: Judge) -> None:
        self._registry = registry
        self._hooks = Hooks(registry, "validatingwebhookconfigurations", caller, judge)

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
        write = write_of(self._registry, ctx, op, resource, namespace, name, new, old, subresource)
        hooks = self._hooks.concerning(write)
        if not hooks:
            return None
        try:
            async with asyncio.TaskGroup() as group:
                for asked in hooks:
                    group.create_task(self._hooks.ask(asked, write, mutating=False))
        except BaseExceptionGroup as group:
            errors = group.subgroup(StatusError)
            if errors is None:
                raise
            raise _first(errors) from None
        return None


def _first(group: BaseExceptionGroup[StatusError]) -> StatusError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
