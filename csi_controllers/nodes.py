"""What the loops read of Nodes: their names and labels, so that caches of thousands stay small."""

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


class Node(msgspec.Struct):
    """core/v1 Node as far as topology goes."""

    metadata: Metadata


NODES = View(resources.of(core_v1.Node), Node)
