"""A cluster as the story looks at it: objects of the API, usage of pods, machines of the cloud.

Owns requests and their paths; decides nothing.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec

from cli import cloud
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths
from cli.rest import AdminClient
from proto.cloud.v1 import cloud_pb2 as pb

Obj = dict[str, Any]


class ClusterView:
    """One cluster, as its administrator. Every method raises OSError or CommandError."""

    def __init__(self, config: ClusterConfig, paths: ClusterPaths) -> None:
        self._client = AdminClient(config, paths)
        self._paths = paths

    # ---- the API ----

    def get(self, path: str, **query: str) -> Obj | None:
        """None when there is no such object."""
        code, body = self._client.get(f"{path}?{urlencode(query)}" if query else path)
        if code == 404:
            return None
        if code != 200:
            raise OSError(f"GET {path}: {code} {_message(body)}")
        found: Obj = msgspec.json.decode(body)
        return found

    def items(self, path: str, **query: str) -> list[Obj]:
        return (self.get(path, **query) or {}).get("items") or []

    def create(self, path: str, obj: Obj) -> None:
        """Raises CommandError when it is refused."""
        code, body = self._client.request("POST", path, msgspec.json.encode(obj))
        if code not in (200, 201):
            raise CommandError(f"{obj['kind']} {obj['metadata']['name']}: {_message(body)}")

    def delete(self, path: str) -> None:
        """Nothing there is fine."""
        code, body = self._client.request("DELETE", path)
        if code not in (200, 202, 404):
            raise CommandError(f"DELETE {path}: {_message(body)}")

    def nodes(self) -> list[Obj]:
        return self.items("/api/v1/nodes")

    def events(self, namespace: str, reason: str) -> list[Obj]:
        return self.items(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"reason={reason}")

    # ---- the cloud ----

    def groups(self) -> list[pb.Group]:
        return list(cloud.ask(self._paths, "ListGroups", pb.ListGroupsRequest()).groups)

    def instances(self) -> dict[str, pb.Instance]:
        """Machines that are not gone, by name."""
        found = cloud.ask(self._paths, "ListInstances", pb.ListInstancesRequest()).instances
        return {each.name: each for each in found}

    def delete_instance(self, name: str) -> None:
        cloud.ask(self._paths, "DeleteInstance", pb.DeleteInstanceRequest(name=name))

    def bill(self) -> pb.Bill:
        found: pb.Bill = cloud.ask(self._paths, "GetCost", pb.GetCostRequest()).total
        return found


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body).get("message", ""))
    except (msgspec.DecodeError, AttributeError):
        return body.decode(errors="replace")[:200]
