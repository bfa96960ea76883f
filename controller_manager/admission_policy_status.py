"""Tells authors of ValidatingAdmissionPolicies which fields their expressions name and the matched kinds do not have.

Owns: `status.typeChecking` and `status.observedGeneration`. What is found is a warning: the policy is in force anyway.
Only chains of fields that start at `object` or `oldObject` are looked at, in built-in kinds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from api import resources, schema
from api.models import admissionregistration_v1
from client.client import PatchType
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.environment import Environment
from machinery.meta import ObjectKey

MOST_KINDS: Final = 10
"""So many kinds are checked against, as upstream does."""
_POLICIES: Final = resources.of(admissionregistration_v1.ValidatingAdmissionPolicy)
_TEXT: Final = re.compile(r"""[bB]?[rR]?("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|//[^\n]*""")
_CHAIN: Final = re.compile(r"(?<![\w.])(?:object|oldObject)((?:\.\??[A-Za-z_]\w*)+)(\s*\()?")
_FIELD: Final = re.compile(r"\.\??([A-Za-z_]\w*)")


def matched_kinds(rules: Iterable[Mapping[str, Any]]) -> list[resources.Resource]:
    """The built-in kinds that rules name without wildcards."""
    found: dict[resources.Resource, None] = {}
    for rule in rules:
        for group in rule.get("apiGroups") or ():
            for version in rule.get("apiVersions") or ():
                for plural in rule.get("resources") or ():
                    resource = resources.lookup(group, version, plural)
                    if resource is not None:
                        found[resource] = None
    return sorted(found, key=lambda each: (each.group, each.version, each.kind))[:MOST_KINDS]


def undefined_fields(expression: str, kind: schema.SchemaNode) -> Iterator[tuple[int, str]]:
    """Where a chain of fields leaves the kind's schema, and by which name; the position is that of the dot."""
    blank = _TEXT.sub(lambda match: " " * len(match[0]), expression)
    for chain in _CHAIN.finditer(blank):
        fields = list(_FIELD.finditer(blank, chain.start(1), chain.end(1)))
        if chain[2]:
            fields = fields[:-1]  # the last name is a function's
        node: schema.SchemaNode | None = kind
        for field in fields:
            if node is None or not node.properties:
                break  # a map, or anything at all
            if field[1] not in node.properties:
                yield field.start(), field[1]
                break
            node = node.properties[field[1]]


def plan_warnings(spec: Mapping[str, Any]) -> list[dict[str, str]]:
    """`status.typeChecking.expressionWarnings` of a policy."""
    kinds = matched_kinds((spec.get("matchConstraints") or {}).get("resourceRules") or ())
    warnings = []
    for index, validation in enumerate(spec.get("validations") or ()):
        for field in ("expression", "messageExpression"):
            texts = [text for kind in kinds for text in _problems(str(validation.get(field) or ""), kind)]
            if texts:
                warnings.append({"fieldRef": f"spec.validations[{index}].{field}", "warning": "\n".join(texts)})
    return warnings


def _problems(expression: str, resource: resources.Resource) -> Iterator[str]:
    node = schema.for_kind(resource.group, resource.version, resource.kind)
    if node is None:
        return
    for position, name in undefined_fields(expression, node):
        before = expression[:position]
        line, column = before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1
        shown = expression.split("\n")[line - 1]
        where = f"{resource.group_version}, Kind={resource.kind}: ERROR: <input>:{line}:{column}"
        yield f"{where}: undefined field '{name}'\n | {shown}\n | {'.' * (column - 1)}^"


class AdmissionPolicyStatusController:
    """Reads policies, writes their status."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._policies: Informer[dict[str, Any]] = env.informers.informer(_POLICIES)
        self.controller = Controller(
            "validatingadmissionpolicy-status-controller",
            self.reconcile,
            clock=env.clock,
            informers=[self._policies],
            workers=1,
        )
        self.controller.watches(self._policies)

    async def reconcile(self, key: ObjectKey) -> Result:
        policy = self._policies.lister.get(key)
        if policy is None:
            return DONE
        meta, status = policy["metadata"], policy.get("status") or {}
        if status.get("observedGeneration") == meta.get("generation"):
            return DONE
        warnings = plan_warnings(policy.get("spec") or {})
        checked: dict[str, Any] = {"expressionWarnings": warnings or None}
        told = {"status": {"observedGeneration": meta.get("generation"), "typeChecking": checked}}
        await self._client.patch(
            _POLICIES,
            key.name,
            told,
            type=PatchType.MERGE,
            subresource="status",
            resource_version=meta["resourceVersion"],
        )
        return DONE


def build(env: Environment) -> list[Controller]:
    return [AdmissionPolicyStatusController(env).controller]
