"""MutatingAdmissionPolicy: mutations bound to what they change, evaluated inside the server.

Owns the two forms of a mutation (an apply configuration, a JSON patch), the meaning of failures, and which policies ask
to run again. When they do is `admission.mutation`'s.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from apiserver.admission.forming import take
from apiserver.admission.policies.bindings import Bindings, Bound, ParamsMissing
from apiserver.admission.refusal import forbidden
from apiserver.admission.write import Write, in_version
from apiserver.apply.merge import merged
from apiserver.apply.shapes import DEDUCED_SHAPE, KEYED, MAP, SET, STRUCT, WHOLE, Shape, root_shape
from apiserver.crd.resource import CustomResource
from apiserver.registry.hooks import Obj
from apiserver.registry.store import Registry
from machinery.errors import Cause, StatusError

if TYPE_CHECKING:
    from apiserver.admission.policies.expressions import Judge, Values


class MutationFailed(Exception):
    """A mutation cannot be carried out; the text tells why."""


class Call(NamedTuple):
    """A policy with one of its parameters."""

    bound: Bound
    params: Obj | None

    @property
    def reinvoked(self) -> bool:
        return bool((self.bound.policy.get("spec") or {}).get("reinvocationPolicy") == "IfNeeded")


class MutatingPolicies:
    """Run one after the other, in the order of their names."""

    def __init__(self, registry: Registry, judge: Judge) -> None:
        self.registry = registry
        self.judge = judge
        self.bindings = Bindings(registry, "mutatingadmissionpolicies", "mutatingadmissionpolicybindings")

    @property
    def none(self) -> bool:
        return self.bindings.none

    def begin(self, write: Write) -> PolicyRound:
        """The policies' part in one write."""
        return PolicyRound(self, write)


class PolicyRound:
    """The mutating policies of one write."""

    def __init__(self, policies: MutatingPolicies, write: Write) -> None:
        self._registry = policies.registry
        self._judge = policies.judge
        self._bindings = policies.bindings
        self._write = write
        self._calls: list[Call] = []
        self._again: list[Call] = []
        self._left: Obj | None = None
        self._failures: list[tuple[Bound, str]] = []

    async def run(self) -> bool:
        """Carry out every mutation; has one changed the object? Raises Forbidden for what fails and must not."""
        for bound in self._bindings.concerning(self._write):
            try:
                self._calls += [Call(bound, each) for each in await self._bindings.params(bound, self._write)]
            except (ParamsMissing, StatusError) as error:
                self._failed(bound, f"failed to configure binding: {error}")
        changed = False
        for index, call in enumerate(self._calls):
            if await self._run(call):
                changed = True
                self._again += [each for each in self._calls[:index] if each.reinvoked and each not in self._again]
        self._left = copy.deepcopy(self._write.new) if self._calls else None
        self._raise()
        return changed

    async def run_again(self) -> bool:
        """The same for those that ask for it and have not seen the object as it is now."""
        if self._left is not None and self._left != self._write.new:
            self._again = [each for each in self._calls if each.reinvoked]
        changed = False
        for call in self._again:
            changed = await self._run(call) or changed
        self._raise()
        return changed

    def _failed(self, bound: Bound, why: str) -> None:
        if not bound.tolerant:
            self._failures.append((bound, why))

    def _raise(self) -> None:
        if not self._failures:
            return
        texts = [
            f"policy '{bound.policy['metadata']['name']}' with binding '{bound.binding['metadata']['name']}' "
            f"denied request: {why}"
            for bound, why in self._failures
        ]
        write = self._write
        error = forbidden(write.sent, write.name, write.new or write.old, "admission request denied by policy")
        error.message, error.reason = texts[0], "Invalid"
        error.details = {**(error.details or {}), "causes": [Cause("", text).as_dict() for text in texts]}
        raise error

    async def _run(self, call: Call) -> bool:
        """One policy's mutations in order; has the object changed?"""
        from apiserver.admission.policies.expressions import ExpressionFailed, add_variables, conditions_hold

        write, bound = self._write, call.bound
        spec = bound.policy.get("spec") or {}
        changed = False
        try:
            values = await self._values(call)
            if write.new is None or not conditions_hold(spec.get("matchConditions") or (), values):
                return False
            for mutation in spec.get("mutations") or ():
                values = await self._values(call)
                add_variables(values, spec.get("variables") or ())
                made = mutated(mutation, values, self._shape(bound))
                if made is not None:
                    changed = await take(self._registry, write, made, bound.seen) or changed
        except (ExpressionFailed, MutationFailed) as error:
            self._failed(bound, str(error))
        except StatusError as error:
            self._failed(bound, error.message)
        return changed

    async def _values(self, call: Call) -> Values:
        write, seen = self._write, call.bound.seen
        new, old = write.shown(write.new), write.shown(write.old)
        if seen != write.resource:
            new = await in_version(self._registry, new, write.resource, seen)
            old = await in_version(self._registry, old, write.resource, seen)
        return self._judge.values_of(write, seen=seen, new=new, old=old).having(params=call.params)

    def _shape(self, bound: Bound) -> Shape:
        kind = self._write.kind(bound.seen)
        custom = bound.seen.node if isinstance(bound.seen, CustomResource) else None
        return root_shape(kind.group, kind.version, kind.kind, custom)


def mutated(mutation: Mapping[str, Any], values: Values, shape: Shape) -> Any:
    """What a mutation makes of `object`; None when its patch does not apply by its own test.

    Raises ExpressionFailed and MutationFailed.
    """
    from apiserver.admission.policies.expressions import evaluate

    obj = values["object"]
    if mutation.get("patchType") == "JSONPatch":
        operations = evaluate(str((mutation.get("jsonPatch") or {}).get("expression") or ""), values, "")
        return _patched(obj, operations)
    config = evaluate(str((mutation.get("applyConfiguration") or {}).get("expression") or ""), values, "")
    if not isinstance(config, dict):
        raise MutationFailed(f"unsupported return type from ApplyConfiguration expression: {type(config).__name__}")
    atomic = atomics(shape, config)
    if atomic:
        raise MutationFailed(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
            + ", ".join(atomic)
        )
    return merged(shape, obj, config)


def _patched(obj: Any, operations: Any) -> Any:
    from machinery import patch as patches

    if not isinstance(operations, list) or not all(isinstance(each, dict) for each in operations):
        raise MutationFailed("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch")
    made = obj
    for each in operations:
        if each.get("op") == "test":
            try:
                patches.apply_json_patch(copy.deepcopy(made), [each])
            except StatusError:
                return None  # a patch that fails its own test is not applied, and that is no error
            continue
        try:
            made = patches.apply_json_patch(copy.deepcopy(made), [each])
        except StatusError as error:
            raise MutationFailed(f"JSONPath: {error.message}") from error
    return made


def atomics(shape: Shape, value: Any, path: str = "") -> list[str]:
    """Where a configuration states part of something that can only be stated whole."""
    found: list[str] = []
    if isinstance(value, dict):
        if shape.kind == WHOLE:
            found.append(path)
        elif shape.kind in (STRUCT, MAP):
            for name, below in value.items():
                found += atomics(shape.child(name) or DEDUCED_SHAPE, below, f"{path}.{name}")
    elif isinstance(value, list):
        if shape.kind == WHOLE:
            found.append(path)
        elif shape.kind in (KEYED, SET) and shape.element is not None:
            for index, item in enumerate(value):
                found += atomics(shape.element, item, f"{path}[{index}]")
    return found
