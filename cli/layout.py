"""Where a cluster lives on disk and in the address space: the state folder, its config file, its networks.

Owns `cluster.json`. Knows no process. Two clusters differ in name and index; every port, network and path follows
from these two.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cli.errors import CommandError
from machinery import quantity
from machinery.tls import write_private

DEFAULT_NAME = "nanokube"
MAX_CLUSTERS = 16
MAX_NODES = 200
MAX_PODS = 250  # a node's network is a /24
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,18}[a-z0-9])?")
# Names of other things that stand beside clusters (folders) or beside nodes (pinned namespaces and cgroups).
_RESERVED = {"cluster name": {"tools"}, "node name": {"host", "switch", "supervisor", "control-plane", "init"}}
SCRAPE_SECONDS = 15.0  # cluster seconds between Prometheus' scrapes
LOG_LEVELS = ("debug", "info", "warning", "error")


def state_root() -> Path:
    """The folder of all clusters; NANOKUBE_STATE moves it (it must be on a real file system, not on overlayfs)."""
    return Path(os.environ.get("NANOKUBE_STATE") or "/var/lib/nanokube")


def check_name(name: str, what: str = "cluster name") -> str:
    """Raises CommandError for a name that cannot be part of interfaces, cgroups and hosts."""
    if not _NAME.fullmatch(name):
        raise CommandError(f"{what} {name!r}: want up to 20 of a-z, 0-9 and '-', beginning with a letter", 2)
    if name in _RESERVED[what]:
        raise CommandError(f"{what} {name!r} is reserved", 2)
    return name


class NodeConfig(msgspec.Struct, omit_defaults=True):
    """A machine: its name, its number (from which its address follows), its declared size, and how its node registers.

    `group` is the cloud's node group it was made for; `labels` and `taints` are as the kubelet's flags have them.
    """

    name: str
    index: int
    cpu: str = "2"
    memory: str = "2Gi"
    max_pods: int = 110
    group: str = ""
    labels: str = ""
    taints: str = ""


class HollowConfig(msgspec.Struct, omit_defaults=True):
    """The hollow nodes: how many, and what they are like."""

    count: int
    cpu: str = "4"
    memory: str = "8Gi"
    max_pods: int = 110
    zones: str = ""
    labels: str = ""
    taints: str = ""
    pods: bool = True


class ClusterConfig(msgspec.Struct, omit_defaults=True):
    """What `up` was asked for; kept in cluster.json so that every later command and start agrees."""

    name: str
    index: int
    nodes: list[NodeConfig] = []
    only: list[str] = []
    time_scale: float = 1.0
    log_level: str = "info"
    next_node: int = 1
    hollow: HollowConfig | None = None
    hollow_machines: bool = False  # the cloud has, or had, some
    audit: bool = False
    prometheus: bool = False
    vpa: bool = False
    nodepools: bool = False
    block_volumes: str = ""  # "": none; what they are made of: "loop" or "folder"
    block_filesystem: str = ""  # of those behind loop devices

    @property
    def underlay(self) -> ipaddress.IPv4Network:
        """The network of machines; the host's side is its first address."""
        return ipaddress.IPv4Network(f"10.250.{self.index}.0/24")

    @property
    def pod_cidr(self) -> str:
        return f"10.{244 - self.index}.0.0/16"

    @property
    def service_cidr(self) -> str:
        return f"10.{96 + self.index}.0.0/16"

    @property
    def load_balancer_cidr(self) -> str:
        """Addresses of Services of type LoadBalancer: the host finds them, and kube-proxy, behind its own cable."""
        return f"10.251.{self.index}.0/24"

    @property
    def kubernetes_service_ip(self) -> str:
        return f"10.{96 + self.index}.0.1"

    @property
    def host_ip(self) -> str:
        return str(self.underlay[1])

    @property
    def rest_port(self) -> int:
        return 6443 + self.index

    @property
    def grpc_port(self) -> int:
        return 7443 + self.index

    @property
    def metrics_port(self) -> int:
        return 4443 + self.index

    @property
    def adapter_port(self) -> int:
        return 5443 + self.index

    @property
    def vpa_port(self) -> int:
        return 8643 + self.index

    @property
    def prometheus_port(self) -> int:
        return 9090 + self.index

    @property
    def scrape_interval(self) -> int:
        """Real seconds: Prometheus keeps no other time, and asks no more often than each second."""
        return max(1, round(SCRAPE_SECONDS / self.time_scale))

    @property
    def rate_window(self) -> int:
        """Real seconds over which rates are taken: two scrapes are enough, and two may fail."""
        return 4 * self.scrape_interval

    @property
    def hollow_port(self) -> int:
        return 10350 + self.index

    @property
    def hollow_machines_port(self) -> int:
        return 10370 + self.index

    @property
    def has_machines(self) -> bool:
        return not self.only or "worker" in self.only or "kubelet" in self.only

    def node_ip(self, node: NodeConfig) -> str:
        return str(self.underlay[10 + node.index])

    def node(self, name: str) -> NodeConfig:
        """Raises CommandError when there is no such node."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes) or "none"
        raise CommandError(f"cluster {self.name} has no node {name!r} (nodes: {known})")


Setting = str | int | float  # YAML's 2 means "2"


class UpConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The file of `up --config` (YAML or JSON): sizes of machines and the same settings as the flags."""

    workers: int | None = None
    timeScale: float | None = None
    only: list[str] = []
    logLevel: str | None = None
    machine: dict[str, Setting] = {}

    def check(self) -> None:
        """Raises CommandError when a value makes no sense."""
        unknown = set(self.machine) - {"cpu", "memory", "maxPods"}
        if unknown:
            raise CommandError(f"config: machine has no setting {sorted(unknown)[0]!r} (cpu, memory, maxPods)", 2)
        for key in ("cpu", "memory"):
            if key in self.machine:
                try:
                    positive = quantity.parse(str(self.machine[key])) > 0
                except ValueError as error:
                    raise CommandError(f"config: machine.{key}: {error}", 2) from error
                if not positive:
                    raise CommandError(f"config: machine.{key} must be positive", 2)
        pods = str(self.machine.get("maxPods", "1"))
        if not (pods.isascii() and pods.isdigit() and 0 < int(pods) <= MAX_PODS):
            raise CommandError(f"config: machine.maxPods must lie between 1 and {MAX_PODS}, not {pods!r}", 2)
        if self.logLevel is not None and self.logLevel not in LOG_LEVELS:
            raise CommandError(f"config: logLevel must be one of {', '.join(LOG_LEVELS)}", 2)


@dataclass(frozen=True)
class ClusterPaths:
    """Every path of one cluster, from its state folder."""

    root: Path
    config: Path = field(init=False)
    pki: Path = field(init=False)
    etcd: Path = field(init=False)
    run: Path = field(init=False)
    logs: Path = field(init=False)
    images: Path = field(init=False)
    nodes: Path = field(init=False)

    def __post_init__(self) -> None:
        names = {
            "config": "cluster.json",
            "pki": "pki",
            "etcd": "etcd",
            "run": "run",
            "logs": "logs",
            "images": "images",
        }
        for name, file in {**names, "nodes": "nodes"}.items():
            object.__setattr__(self, name, self.root / file)

    @classmethod
    def of(cls, name: str) -> ClusterPaths:
        return cls(state_root() / check_name(name))

    @property
    def front_proxy(self) -> Path:
        return self.pki / "front-proxy"

    @property
    def prometheus(self) -> Path:
        return self.root / "prometheus"

    @property
    def adapter_rules(self) -> Path:
        """The metrics-adapter's configuration; users may change it."""
        return self.prometheus / "adapter.yaml"

    @property
    def control_socket(self) -> Path:
        return self.run / "supervisor.sock"

    @property
    def supervisor_pid(self) -> Path:
        return self.run / "supervisor.pid"

    @property
    def etcd_socket(self) -> Path:
        return self.run / "etcd.sock:0"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def cloud_socket(self) -> Path:
        return self.run / "cloud.sock"

    @property
    def cloud_state(self) -> Path:
        return self.root / "cloud.json"

    @property
    def volumes(self) -> Path:
        """The disks of the cloud's block volumes."""
        return self.root / "volumes"

    @property
    def block_socket(self) -> Path:
        return self.run / "block-csi.sock"

    @property
    def hollow_roster(self) -> Path:
        return self.root / "hollow.json"

    @property
    def host_netns(self) -> Path:
        return self.run / "netns" / "host"

    @property
    def switch_netns(self) -> Path:
        return self.run / "netns" / "switch"

    def node_netns(self, node: str) -> Path:
        return self.run / "netns" / node

    def node(self, node: str) -> Path:
        return self.nodes / node

    def health_socket(self, process: str) -> Path:
        return self.run / f"{process}.health"

    def make(self) -> None:
        """Create the folders, private to root."""
        for folder in (self.root, self.pki, self.etcd, self.run, self.logs, self.images, self.nodes):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def load(paths: ClusterPaths) -> ClusterConfig | None:
    """The cluster's config, or None when there is no such cluster. Raises CommandError on a damaged file."""
    try:
        return msgspec.json.decode(paths.config.read_bytes(), type=ClusterConfig)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.MsgspecError as error:
        raise CommandError(f"{paths.config}: {error}; run `nanokube down` to start over") from error


def save(paths: ClusterPaths, config: ClusterConfig) -> None:
    """Write cluster.json atomically."""
    write_private(paths.config, msgspec.json.format(msgspec.json.encode(config)) + b"\n")


def clusters() -> Iterator[ClusterConfig]:
    """The config of every cluster on this machine; damaged ones are passed over."""
    for folder in sorted(state_root().glob("*/cluster.json")):
        try:
            yield msgspec.json.decode(folder.read_bytes(), type=ClusterConfig)
        except (OSError, msgspec.MsgspecError):
            continue
