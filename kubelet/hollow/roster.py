"""Hollow nodes by name: who they are stands in a file that somebody else keeps, and may change while they are played.

Owns nothing; a file that is damaged or gone leaves everything as it was. Read by `hollow.fleet`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kubelet.hollow.labels import LABEL, ROLE
from kubelet.node.status import NodeSettings, parse_labels, parse_taints
from machinery import log
from machinery.log import kv

_log = log.get(__name__)


class Entry(msgspec.Struct):
    """One node; `labels` and `taints` as the flags of a kubelet."""

    name: str
    cpu: str
    memory: str
    max_pods: int = 110
    labels: str = ""
    taints: str = ""


@dataclass
class Roster:
    """The settings of a fleet, read anew by `changed`. The nodes share the address of the process that plays them."""

    file: Path
    address: str = "127.0.0.1"
    port: int = 10350
    _nodes: dict[str, NodeSettings] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)
    _stamp: tuple[int, int] = (0, 0)

    def changed(self) -> bool:
        """Read the file if it is another one than last time; whether it was."""
        try:
            stat = self.file.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if stamp == self._stamp:
                return False
            entries = msgspec.json.decode(self.file.read_bytes(), type=list[Entry])
            nodes = {each.name: self._settings(each) for each in entries}
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            _log.warning("Could not read who the nodes are", extra=kv(file=self.file, error=error))
            return False
        self._stamp, self._nodes = stamp, nodes
        self._known.update(nodes)
        return True

    def names(self) -> list[str]:
        return list(self._nodes)

    def owns(self, name: str) -> bool:
        """Whether a node of this name is, or was, one of these."""
        return name in self._known

    def node(self, name: str) -> NodeSettings:
        """Raises KeyError for one that is gone."""
        return self._nodes[name]

    def _settings(self, entry: Entry) -> NodeSettings:
        return NodeSettings(
            name=entry.name,
            ip=self.address,
            port=self.port,
            cpu=entry.cpu,
            memory=entry.memory,
            max_pods=entry.max_pods,
            ephemeral_storage=64 << 30,
            labels={LABEL: "true", ROLE: "", **parse_labels(entry.labels)},
            taints=parse_taints(entry.taints),
        )
