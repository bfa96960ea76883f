"""The plugins that are on by default, in the order in which they run. A new plugin is one module and one line here."""

from __future__ import annotations

from typing import Protocol

from apiserver.admission.default_class import INGRESS, STORAGE, DefaultClass
from apiserver.admission.default_toleration_seconds import DefaultTolerationSeconds
from apiserver.admission.limit_ranger import LimitRanger
from apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from apiserver.admission.node_restriction import NodeRestriction
from apiserver.admission.pod_security.plugin import PodSecurity
from apiserver.admission.policies.plugin import AdmissionPolicies
from apiserver.admission.priority import Priority
from apiserver.admission.resource_quota import ResourceQuota
from apiserver.admission.runtime_class import RuntimeClass
from apiserver.admission.service_account import ServiceAccount
from apiserver.admission.storage_protection import StorageObjectInUseProtection
from apiserver.admission.taint_nodes import TaintNodesByCondition
from apiserver.admission.webhooks.call import Caller
from apiserver.admission.webhooks.plugin import MutatingWebhooks, ValidatingWebhooks
from apiserver.registry.hooks import Admission, Plugin
from apiserver.registry.store import Registry


class Server(Protocol):
    """What the plugins are built from."""

    @property
    def registry(self) -> Registry: ...


def default_plugins(registry: Registry, *, token_volumes: bool = False) -> list[Plugin]:
    """New instances for one API server."""
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
        NodeRestriction(),
    ]
    caller = Caller(registry)
    return [
        *built_in,
        PodSecurity(registry),
        MutatingWebhooks(registry, caller, built_in),
        AdmissionPolicies(registry),
        ValidatingWebhooks(registry, caller),
        ResourceQuota(registry),
    ]


def install(server: Server, *, token_volumes: bool = False) -> None:
    """Turn the default plugins on. Called once, before the server answers.

    `token_volumes`: pods mount their service account's token; wants a server that signs tokens.
    """
    server.registry.admission.extend(default_plugins(server.registry, token_volumes=token_volumes))
