"""DefaultStorageClass and DefaultIngressClass: claims and ingresses that name no class get the default one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, Obj
from apiserver.registry.store import Registry

if TYPE_CHECKING:
    from api.resources import Resource


class ClassRule(NamedTuple):
    """Who gets a class, where it is written, and which class is the default one. `plugin` is upstream's name."""

    plugin: str
    subject: tuple[str, str]
    field: str
    old_annotation: str
    classes: tuple[str, str, str]
    marks: tuple[str, ...]


STORAGE = ClassRule(
    "DefaultStorageClass",
    ("", "persistentvolumeclaims"),
    "storageClassName",
    "volume.beta.kubernetes.io/storage-class",
    ("storage.k8s.io", "v1", "storageclasses"),
    ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"),
)
INGRESS = ClassRule(
    "DefaultIngressClass",
    ("networking.k8s.io", "ingresses"),
    "ingressClassName",
    "kubernetes.io/ingress.class",
    ("networking.k8s.io", "v1", "ingressclasses"),
    ("ingressclass.kubernetes.io/is-default-class",),
)


def choose_default(classes: list[Obj], marks: tuple[str, ...]) -> str:
    """The name of the default class; of several the newest, then the first by name. "" when there is none."""
    marked = []
    for each in classes:
        annotations = each["metadata"].get("annotations") or {}
        if any(annotations.get(mark) == "true" for mark in marks):
            marked.append(each["metadata"])
    marked.sort(key=lambda meta: str(meta["name"]))
    marked.sort(key=lambda meta: str(meta.get("creationTimestamp") or ""), reverse=True)
    return str(marked[0]["name"]) if marked else ""


class DefaultClass:
    """One of the two rules."""

    def __init__(self, registry: Registry, rule: ClassRule) -> None:
        self._registry = registry
        self._rule = rule
        self.name = rule.plugin

    def handles(self, resource: Resource) -> bool:
        return (resource.group, resource.plural) == self._rule.subject

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
        rule = self._rule
        if op != CREATE or new is None or (resource.group, resource.plural) != rule.subject:
            return
        spec = new.get("spec") or {}
        annotations = new["metadata"].get("annotations") or {}
        if spec.get(rule.field) is not None or rule.old_annotation in annotations:
            return
        classes = self._registry.resource(*rule.classes)
        chosen = choose_default([entry.decoded() for entry in classes.entries()], rule.marks)
        if chosen:
            new["spec"] = {**spec, rule.field: chosen}
