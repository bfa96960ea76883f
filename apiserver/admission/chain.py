"""The plugins that are on by default, in the order in which they run. A new plugin is one module and one line here."""

from __future__ import annotations

from typing import Protocol

from apiserver.admission.certificates import CertificateRights
from apiserver.admission.claim_resize import PersistentVolumeClaimResize
from apiserver.admission.default_class import INGRESS, STORAGE, DefaultClass
from apiserver.admission.default_toleration_seconds import DefaultTolerationSeconds
from apiserver.admission.limit_ranger import LimitRanger
from apiserver.admission.mutation import Mutations, Phase
from apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from apiserver.admission.node_restriction import NodeRestriction
from apiserver.admission.pod_security.plugin import PodSecurity
from apiserver.admission.pod_topology import PodTopologyLabels
from apiserver.admission.policies.expressions import Authorize, Judge
from apiserver.admission.policies.mutating import MutatingPolicies
from apiserver.admission.policies.validating import ValidatingPolicies
from apiserver.admission.priority import Priority
from apiserver.admission.resource_quota import ResourceQuota
from apiserver.admission.runtime_class import RuntimeClass
from apiserver.admission.service_account import ServiceAccount
from apiserver.admission.storage_protection import StorageObjectInUseProtection
from apiserver.admission.taint_nodes import TaintNodesByCondition
from apiserver.admission.webhooks.call import Caller
from apiserver.admission.webhooks.plugin import MutatingWebhooks, ValidatingWebhooks
from apiserver.auth.gate import Gate
from apiserver.registry.hooks import Admission, Plugin
from apiserver.registry.store import Registry


class Server(Protocol):
    """What the plugins are built from."""

    @property
    def registry(self) -> Registry: ...

    @property
    def gate(self) -> Gate: ...


def default_plugins(
    registry: Registry, *, token_volumes: bool = False, authorize: Authorize | None = None
) -> list[Plugin]:
    """New instances for one API server. `authorize` decides what expressions ask about rights."""
    built_in: list[Admission] = [
        NamespaceLifecycle(registry),
        LimitRanger(registry),
        ServiceAccount(registry, token_volumes=token_volumes),
        TaintNodesByCondition(),
        Priority(registry),
        RuntimeClass(registry),
        DefaultTolerationSeconds(),
        DefaultClass(registry, STORAGE),
        StorageObjectInUseProtection(),
        DefaultClass(registry, INGRESS),
        NodeRestriction(registry, authorize),
        PodTopologyLabels(registry),
    ]
    rights = [CertificateRights(authorize)] if authorize is not None else []
    caller, judge = Caller(registry), Judge(registry, authorize)
    phases: list[Phase] = [MutatingPolicies(registry, judge), MutatingWebhooks(registry, caller, judge)]
    return [
        *built_in,
        PodSecurity(registry),
        PersistentVolumeClaimResize(registry),
        *rights,
        Mutations(registry, built_in, phases),
        ValidatingPolicies(registry, judge),
        ValidatingWebhooks(registry, caller, judge),
        ResourceQuota(registry),
    ]


def install(server: Server, *, token_volumes: bool = False) -> None:
    """Turn the default plugins on. Called once, before the server answers.

    `token_volumes`: pods mount their service account's token; wants a server that signs tokens.
    """
    plugins = default_plugins(server.registry, token_volumes=token_volumes, authorize=server.gate.decide)
    server.registry.admission.extend(plugins)
