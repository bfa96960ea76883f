"""ClusterRole aggregation: a ClusterRole with an aggregationRule gets the rules of all that its selectors match.

Owns: `rules` of aggregated ClusterRoles. Never: widens a role by anything that no selected role grants.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata; the models call it optional.

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from api.models import rbac_v1
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.environment import Environment
from machinery.meta import ObjectKey
from machinery.selectors import LabelSelector


def plan_rules(role: rbac_v1.ClusterRole, others: Iterable[rbac_v1.ClusterRole]) -> list[rbac_v1.PolicyRule]:
    """The rules of all selected roles, each once, in the order of the roles' names."""
    ordered = sorted(others, key=lambda each: each.metadata.name or "")
    planned: list[rbac_v1.PolicyRule] = []
    for wanted in role.aggregationRule.clusterRoleSelectors or ():
        selector = LabelSelector.from_object(wanted)
        for other in ordered:
            if other.metadata.name != role.metadata.name and selector.matches(other.metadata.labels):
                planned.extend(rule for rule in other.rules or () if rule not in planned)
    return planned


class ClusterRoleAggregationController:
    """Reads and writes ClusterRoles."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._roles: Informer[rbac_v1.ClusterRole] = env.informers.informer(rbac_v1.ClusterRole)
        self.controller = Controller(
            "clusterrole-aggregation", self.reconcile, clock=env.clock, informers=[self._roles], workers=1
        )
        self.controller.watches(self._roles, self._aggregated)

    def _aggregated(self, _: Any) -> Iterable[ObjectKey]:
        """Any role may be part of any aggregated one, and there are few of these."""
        return [key_of(each) for each in self._roles.lister.list() if each.aggregationRule is not None]

    async def reconcile(self, key: ObjectKey) -> Result:
        role = self._roles.lister.get(key)
        if role is None or role.aggregationRule is None or role.metadata.deletionTimestamp is not None:
            return DONE
        planned = plan_rules(role, self._roles.lister.list())
        if planned == (role.rules or []):
            return DONE
        await self._client.patch(
            rbac_v1.ClusterRole,
            key.name,
            {"rules": msgspec.to_builtins(planned)},
            resource_version=role.metadata.resourceVersion,
        )
        return DONE


def build(env: Environment) -> list[Controller]:
    return [ClusterRoleAggregationController(env).controller]
