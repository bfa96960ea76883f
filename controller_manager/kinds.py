"""Which kinds there are: the built-in ones, those that CustomResourceDefinitions add, those of aggregated APIs.

Owns: the list of resources whose objects can be listed and deleted. Never: reads their objects. Called by the garbage
collector and the namespace controller, which must reach every kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from api import resources
from api.models import apiextensions_v1
from api.resources import Resource
from client.client import Client
from client.informer import EventHandler, Informer
from controller_manager.aggregated import Aggregated, AggregatedResource
from controller_manager.environment import Environment

_DEFINITIONS: Final = resources.of(apiextensions_v1.CustomResourceDefinition)


def is_deletable(resource: Resource) -> bool:
    """Objects of it can be listed, watched and deleted, and are not a second name for another kind's objects."""
    return resource.storage is None and {"list", "watch", "delete"} <= set(resource.verbs)


def is_collectable(resource: Resource) -> bool:
    """The same of an aggregated one, which may offer anything."""
    return {"list", "watch", "delete"} <= set(resource.verbs)


def built_in() -> list[Resource]:
    return [resource for resource in resources.RESOURCES if is_deletable(resource)]


def of_definition(definition: dict[str, Any]) -> Resource | None:
    """The resource that a CustomResourceDefinition adds, in the version that it stores."""
    spec = definition.get("spec") or {}
    names = spec.get("names") or {}
    versions = [each for each in spec.get("versions") or () if each.get("served")]
    stored = next((each for each in versions if each.get("storage")), versions[0] if versions else None)
    if stored is None or not names.get("plural") or not spec.get("group"):
        return None
    return Resource(
        group=spec["group"],
        version=stored.get("name", ""),
        plural=names["plural"],
        kind=names.get("kind", ""),
        namespaced=spec.get("scope") != "Cluster",
    )


class Kinds:
    """All deletable resources, kept up to date with the definitions."""

    def __init__(self, env: Environment) -> None:
        self.definitions: Informer[dict[str, Any]] = env.informers.informer(_DEFINITIONS)
        self.aggregated = Aggregated(env.aggregated, env.informers)
        self._client = env.client

    def client(self, resource: Resource) -> Client:
        """What reaches the resource's objects."""
        aggregated = self.aggregated.client
        return aggregated if aggregated is not None and isinstance(resource, AggregatedResource) else self._client

    def all(self) -> list[Resource]:
        """What this API server serves itself."""
        custom = (of_definition(each) for each in self.definitions.lister.list())
        return [*built_in(), *(each for each in custom if each is not None)]

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource that an owner reference means, in whatever version it names."""
        group, version = resources.split_group_version(api_version)
        found = resources.by_kind(group, version, kind)
        if found is not None:
            return found
        known = (*self.all(), *self.aggregated.known)
        return next((each for each in known if each.group == group and each.kind == kind), None)

    def follow(self, told: Callable[[str, Resource | None], None]) -> None:
        """Call back with the name and the resource of each definition, now and at changes; None: it went."""

        def tell(definition: dict[str, Any]) -> None:
            told(definition["metadata"]["name"], of_definition(definition))

        self.definitions.add_handler(
            EventHandler(
                on_add=tell,
                on_update=lambda _, new: tell(new),
                on_delete=lambda definition: told(definition["metadata"]["name"], None),
            )
        )
