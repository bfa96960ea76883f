"""What every namespace gets: the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`.

Owns: those two objects in each active namespace; makes them anew when somebody deletes them.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from api.models import core_v1, meta_v1
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.environment import Environment
from machinery.errors import AlreadyExists, Forbidden
from machinery.meta import ObjectKey

ACCOUNT: Final = "default"
ROOT_CA: Final = "kube-root-ca.crt"
_DESCRIPTION: Final = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


def _namespace_key(obj: Any) -> Iterable[ObjectKey]:
    return (ObjectKey("", obj.metadata.namespace or ""),)


def _is_active(namespace: core_v1.Namespace | None) -> bool:
    return namespace is not None and namespace.metadata.deletionTimestamp is None


class ServiceAccountController:
    """Keeps the default ServiceAccount of each namespace."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._namespaces: Informer[core_v1.Namespace] = env.informers.informer(core_v1.Namespace)
        self._accounts: Informer[core_v1.ServiceAccount] = env.informers.informer(
            core_v1.ServiceAccount, field_selector=f"metadata.name={ACCOUNT}"
        )
        self.controller = Controller(
            "serviceaccount", self.reconcile, clock=env.clock, informers=[self._namespaces, self._accounts]
        )
        self.controller.watches(self._namespaces)
        self.controller.watches(self._accounts, _namespace_key)

    async def reconcile(self, key: ObjectKey) -> Result:
        exists = self._accounts.lister.get(ObjectKey(key.name, ACCOUNT)) is not None
        if exists or not _is_active(self._namespaces.lister.get(key)):
            return DONE
        account = core_v1.ServiceAccount(metadata=meta_v1.ObjectMeta(name=ACCOUNT, namespace=key.name))
        try:
            await self._client.create(account)
        except (AlreadyExists, Forbidden):
            return DONE  # forbidden: the namespace began to terminate
        return DONE


class RootCaPublisher:
    """Keeps the cluster's CA certificate in each namespace, for pods that talk to the API server."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._data = {"ca.crt": env.options.root_ca}
        self._namespaces: Informer[core_v1.Namespace] = env.informers.informer(core_v1.Namespace)
        self._maps: Informer[core_v1.ConfigMap] = env.informers.informer(
            core_v1.ConfigMap, field_selector=f"metadata.name={ROOT_CA}"
        )
        self.controller = Controller(
            "root-ca-certificate-publisher",
            self.reconcile,
            clock=env.clock,
            informers=[self._namespaces, self._maps],
        )
        self.controller.watches(self._namespaces)
        self.controller.watches(self._maps, _namespace_key)

    async def reconcile(self, key: ObjectKey) -> Result:
        if not _is_active(self._namespaces.lister.get(key)):
            return DONE
        current = self._maps.lister.get(ObjectKey(key.name, ROOT_CA))
        if current is None:
            metadata = meta_v1.ObjectMeta(
                name=ROOT_CA, namespace=key.name, annotations={"kubernetes.io/description": _DESCRIPTION}
            )
            try:
                await self._client.create(core_v1.ConfigMap(metadata=metadata, data=self._data))
            except (AlreadyExists, Forbidden):
                return DONE
        elif current.data != self._data:
            await self._client.patch(core_v1.ConfigMap, ROOT_CA, {"data": self._data}, key.name)
        return DONE


def build_service_account(env: Environment) -> list[Controller]:
    return [ServiceAccountController(env).controller]


def build_root_ca(env: Environment) -> list[Controller]:
    return [RootCaPublisher(env).controller] if env.options.root_ca else []
