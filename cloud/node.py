"""What the cloud reads of Nodes: a small struct, so that caches stay small."""

from __future__ import annotations

import msgspec

from api import resources
from api.models import core_v1
from client.kinds import View


class Metadata(msgspec.Struct):
    name: str
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Taint(msgspec.Struct):
    key: str = ""


class Spec(msgspec.Struct):
    providerID: str = ""
    unschedulable: bool = False
    taints: list[_Taint] | None = None


class Node(msgspec.Struct):
    """core/v1 Node as far as the cloud reads it."""

    metadata: Metadata
    spec: Spec | None = None


NODES = View(resources.of(core_v1.Node), Node)
