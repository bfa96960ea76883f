"""The CSI drivers that are registered on this node.

Owns their clients and what they can do; has the CSINode object say so (`plugins.csi_node`). The registry's handler for
plugins of type CSIPlugin. Read by `volumes.csi`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kubelet.plugins.csi_client import CsiClient, CsiError
from kubelet.plugins.watcher import Refused
from machinery.errors import StatusError
from proto.csi.v1 import csi_pb2 as csi

TYPE: Final = "CSIPlugin"
_VERSION: Final = re.compile(r"v?1(\.\d+)*\Z")


class NodeRecord(Protocol):
    """Where it is written which drivers the node has."""

    async def install(self, driver: str, info: csi.NodeGetInfoResponse) -> None:
        """Raises StatusError, Refused."""

    async def uninstall(self, driver: str) -> None:
        """Raises StatusError."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A registered driver. `abilities` are names of NodeServiceCapability.RPC."""

    name: str
    endpoint: str
    client: CsiClient
    abilities: frozenset[str]

    @property
    def stages(self) -> bool:
        return "STAGE_UNSTAGE_VOLUME" in self.abilities

    @property
    def expands(self) -> bool:
        return "EXPAND_VOLUME" in self.abilities

    @property
    def sets_group(self) -> bool:
        return "VOLUME_MOUNT_GROUP" in self.abilities

    @property
    def tells_writers_apart(self) -> bool:
        return "SINGLE_NODE_MULTI_WRITER" in self.abilities


class UnknownDriver(Exception):
    """No such driver here (yet)."""


class CsiDrivers:
    """One per kubelet."""

    def __init__(self, record: NodeRecord) -> None:
        self._record = record
        self._drivers: dict[str, Driver] = {}

    def get(self, name: str) -> Driver:
        """Raises UnknownDriver, with upstream's text."""
        found = self._drivers.get(name)
        if found is None:
            raise UnknownDriver(f"driver name {name} not found in the list of registered CSI drivers")
        return found

    def names(self) -> list[str]:
        return sorted(self._drivers)

    async def ask_again(self, name: str) -> None:
        """Have what the driver says of the node written anew. Raises CsiError, StatusError, Refused, UnknownDriver."""
        await self._record.install(name, await self.get(name).client.info())

    async def register(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        if not any(_VERSION.match(version) for version in versions):
            told = ", ".join(versions)
            raise Refused(f"CSI driver {name} registration failed: none of the versions [{told}] is supported")
        client = CsiClient(endpoint)
        try:
            info = await client.info()
            if not info.node_id:
                raise Refused(f"CSI driver {name} has no id for this node")
            abilities = await client.abilities()
            await self._record.install(name, info)
        except (CsiError, StatusError) as error:
            await client.close()
            raise Refused(f"CSI driver {name} registration failed: {error}") from error
        except BaseException:
            await client.close()
            raise
        former = self._drivers.get(name)
        self._drivers[name] = Driver(name, endpoint, client, abilities)
        if former is not None:
            await former.client.close()

    async def deregister(self, name: str, endpoint: str) -> None:
        """Raises StatusError: nothing was done."""
        driver = self._drivers.get(name)
        if driver is None or driver.endpoint != endpoint:
            return  # another socket has taken its place
        await self._record.uninstall(name)
        del self._drivers[name]
        await driver.client.close()

    async def close(self) -> None:
        for driver in self._drivers.values():
            await driver.client.close()
        self._drivers.clear()
