"""The store of CustomResourceDefinitions: deleting one begins with marking it.

Owns that one difference to other kinds. Made by the registry for this resource.
"""

from __future__ import annotations

from apiserver.crd.naming import plan_deletion
from apiserver.registry.context import DeleteOptions
from apiserver.registry.deletion import Deletion
from apiserver.registry.hooks import Obj
from apiserver.registry.writing import ResourceStore
from machinery.meta import rfc3339


class DefinitionStore(ResourceStore):
    """apiextensions.k8s.io customresourcedefinitions."""

    def _plan_deletion(self, obj: Obj, options: DeleteOptions) -> Deletion:
        return plan_deletion(obj, options, rfc3339(self._clock.now()))
