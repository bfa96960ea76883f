"""Which processes a cluster consists of, and with which flags each is started.

Owns the table from component to command line; everything else asks it. A component is forked from the supervisor's
warm interpreter (`module`), etcd is executed. Starts nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli import block_volumes
from cli.layout import ClusterConfig, ClusterPaths, HollowConfig, NodeConfig
from cli.tools import prometheus_binary

LOG_MEBIBYTES = 20  # of one log file; three older ones are kept
AUDIT_POLICY = Path(__file__).parent / "audit_policy.yaml"
HOST = ""  # the node column of processes that belong to no worker
COMPONENTS = (
    "apiserver",
    "scheduler",
    "controller-manager",
    "metrics-server",
    "cloud",
    "cluster-autoscaler",
    "kube-proxy",
    "worker",
)


@dataclass(frozen=True)
class ProcessSpec:
    """One process to keep: `module` is forked, or else `argv` executed; `restart` brings it back when it dies."""

    name: str
    component: str
    node: str
    argv: tuple[str, ...]
    address: str
    module: str = ""
    restart: bool = True
    health: str = ""
    folder: str = "/"


def _common(config: ClusterConfig, paths: ClusterPaths, name: str) -> list[str]:
    return [
        f"--time-scale={config.time_scale:g}",
        f"--log-level={config.log_level}",
        f"--log-max-size={LOG_MEBIBYTES}",
        f"--healthz=unix:{paths.health_socket(name)}",
    ]


def _client(config: ClusterConfig, paths: ClusterPaths, identity: str, *, machine: bool = False) -> list[str]:
    host = config.host_ip if machine else "127.0.0.1"
    return [
        f"--api-server={host}:{config.grpc_port}",
        f"--ca={paths.pki / 'ca.crt'}",
        f"--cert={paths.pki / f'{identity}.crt'}",
        f"--key={paths.pki / f'{identity}.key'}",
    ]


def etcd(config: ClusterConfig, paths: ClusterPaths, binary: str) -> ProcessSpec:
    """A single member on a Unix socket. The short election timeout makes it start in 0.15 s instead of 0.5 s.

    etcd 3.4 takes only socket URLs that look like `host:port`, relative to its working folder, and 3.5 takes them too.
    """
    argv = (
        binary,
        "--name=nanokube",
        f"--data-dir={paths.etcd}",
        f"--listen-client-urls=unix://{paths.etcd_socket.name}",
        "--listen-peer-urls=unix://etcd-peer.sock:0",
        "--advertise-client-urls=http://localhost:2379",
        "--initial-advertise-peer-urls=http://localhost:2380",
        "--initial-cluster=nanokube=http://localhost:2380",
        "--heartbeat-interval=20",
        "--election-timeout=200",
        "--quota-backend-bytes=8589934592",
        "--max-txn-ops=4096",  # a Service is written with a key for each of its node ports, of which there are 2768
        "--logger=zap",
        "--log-level=warn",
    )
    address = f"unix:{paths.etcd_socket}"
    return ProcessSpec("etcd", "etcd", HOST, argv, address, health=str(paths.etcd_socket), folder=str(paths.run))


def apiserver(config: ClusterConfig, paths: ClusterPaths) -> ProcessSpec:
    """Both doors on loopback and, when there are machines, on the host's underlay address."""
    hosts = ["127.0.0.1", *([config.host_ip] if config.has_machines else [])]
    argv = [
        *_common(config, paths, "apiserver"),
        f"--etcd=unix:{paths.etcd_socket}",
        *(f"--bind={host}:{config.rest_port}" for host in hosts),
        *(f"--grpc-bind={host}:{config.grpc_port}" for host in hosts),
        f"--tls-cert={paths.pki / 'apiserver.crt'}",
        f"--tls-key={paths.pki / 'apiserver.key'}",
        f"--client-ca={paths.pki / 'ca.crt'}",
        f"--token-auth-file={paths.pki / 'tokens.csv'}",
        f"--service-account-key={paths.pki / 'service-account.key'}",
        f"--service-cluster-ip-range={config.service_cidr}",
        f"--advertise-address={hosts[-1]}",
        f"--kubelet-ca={paths.pki / 'ca.crt'}",
        f"--kubelet-client-cert={paths.pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={paths.pki / 'apiserver-kubelet-client.key'}",
        *(
            f"--component-health={name}=unix:{paths.health_socket(name)}"
            for name in ("controller-manager", "scheduler")
        ),
        f"--proxy-client-ca={paths.front_proxy / 'ca.crt'}",
        f"--proxy-client-cert={paths.front_proxy / 'client.crt'}",
        f"--proxy-client-key={paths.front_proxy / 'client.key'}",
    ]
    if config.audit:
        argv += [
            f"--audit-policy-file={AUDIT_POLICY}",
            f"--audit-log-path={paths.logs / 'audit.log'}",
            f"--audit-log-maxsize={LOG_MEBIBYTES}",
            "--audit-log-maxbackup=3",
        ]
    return _forked("apiserver", "apiserver", HOST, argv, paths, f"https://{hosts[0]}:{config.rest_port}")


def _forked(
    module: str,
    component: str,
    node: str,
    argv: Sequence[str],
    paths: ClusterPaths,
    address: str = "",
    *,
    restart: bool = True,
) -> ProcessSpec:
    name = f"{component}-{node}" if node else component
    health = str(paths.health_socket(name))
    return ProcessSpec(name, component, node, tuple(argv), address or f"unix:{health}", module, restart, health)


def control_plane(config: ClusterConfig, paths: ClusterPaths, etcd_binary: str) -> list[ProcessSpec]:
    """etcd, the API server and what `--only` leaves of the rest, in starting order."""
    specs = [etcd(config, paths, etcd_binary), apiserver(config, paths)]
    wanted = set(config.only) or set(COMPONENTS)
    if "scheduler" in wanted:
        argv = [
            *_common(config, paths, "scheduler"),
            *_client(config, paths, "scheduler"),
            f"--explain=unix:{explain_socket(paths)}",
        ]
        specs.append(_forked("scheduler", "scheduler", HOST, argv, paths))
    if "controller-manager" in wanted:
        argv = [
            *_common(config, paths, "controller-manager"),
            *_client(config, paths, "controller-manager"),
            f"--rest-server=https://127.0.0.1:{config.rest_port}",
            f"--explain=unix:{explain_socket(paths, 'controller-manager')}",
            f"--cluster-cidr={config.pod_cidr}",
            f"--root-ca={paths.pki / 'ca.crt'}",
            f"--cluster-signing-cert-file={paths.pki / 'ca.crt'}",
            f"--cluster-signing-key-file={paths.pki / 'ca.key'}",
            f"--service-account-private-key-file={paths.pki / 'service-account.key'}",
            *([f"--node-volume-folder={paths.node('{node}') / 'volumes'}"] if config.has_machines else []),
        ]
        specs.append(_forked("controller_manager", "controller-manager", HOST, argv, paths))
    if serves_metrics(config):
        specs.append(metrics_server(config, paths))
    if has_cloud(config):
        specs.append(cloud(config, paths))
    if scales_nodes(config):
        specs.append(cluster_autoscaler(config, paths))
    if provisions_nodes(config):
        specs.append(nodepool_autoscaler(config, paths))
    if config.vpa:
        specs.append(vertical_autoscaler(config, paths))
    if config.block_volumes:
        specs += [block_controller(config, paths), csi_controllers(config, paths)]
    if config.prometheus:
        specs += [prometheus(config, paths), metrics_adapter(config, paths)]
    if "kube-proxy" in wanted and config.has_machines:
        specs.append(kube_proxy(config, paths, None))
    if config.hollow is not None:
        specs.append(hollow(config, paths, config.hollow))
    if config.hollow_machines:
        specs.append(hollow_machines(config, paths))
    return specs


def serves_metrics(config: ClusterConfig) -> bool:
    """Whether the cluster has a metrics-server."""
    return not config.only or "metrics-server" in config.only


def has_cloud(config: ClusterConfig) -> bool:
    """Whether the cluster's machines are a cloud's."""
    return not config.only or "cloud" in config.only


def scales_nodes(config: ClusterConfig) -> bool:
    """Whether the cluster has an autoscaler of its node groups."""
    return has_cloud(config) and not config.nodepools and (not config.only or "cluster-autoscaler" in config.only)


def provisions_nodes(config: ClusterConfig) -> bool:
    """Whether machines are launched by NodePools instead."""
    return has_cloud(config) and config.nodepools


def nodepool_autoscaler(config: ClusterConfig, paths: ClusterPaths) -> ProcessSpec:
    """It orders machines one by one at the cloud's own service."""
    name = "nodepool-autoscaler"
    argv = [
        *_common(config, paths, name),
        *_client(config, paths, name),
        f"--cloud-address=unix:{paths.cloud_socket}",
        f"--explain=unix:{explain_socket(paths, name)}",
    ]
    return _forked("nodepool_autoscaler", name, HOST, argv, paths)


def cluster_autoscaler(config: ClusterConfig, paths: ClusterPaths) -> ProcessSpec:
    """It knows the cloud only by the provider's contract."""
    name = "cluster-autoscaler"
    argv = [
        *_common(config, paths, name),
        *_client(config, paths, name),
        "--cloud-provider=externalgrpc",
        f"--cloud-address=unix:{paths.cloud_socket}",
        f"--explain=unix:{explain_socket(paths, name)}",
    ]
    return _forked("cluster_autoscaler", name, HOST, argv, paths)


def cloud(config: ClusterConfig, paths: ClusterPaths) -> ProcessSpec:
    """Node groups, load balancers and their bill; it asks the supervisor for machines."""
    argv = [
        *_common(config, paths, "cloud"),
        *_client(config, paths, "cloud"),
        f"--cluster={config.name}",
        f"--state={paths.cloud_state}",
        f"--listen=unix:{paths.cloud_socket}",
        f"--machines={paths.control_socket}",
        f"--load-balancer-cidr={config.load_balancer_cidr}",
    ]
    if config.block_volumes:
        argv += [
            f"--volumes={config.block_volumes}",
            f"--volume-folder={paths.volumes}",
            f"--machine-folder={paths.nodes}",
        ]
    return _forked("cloud", "cloud", HOST, argv, paths, f"unix:{paths.cloud_socket}")


def block_controller(config: ClusterConfig, paths: ClusterPaths) -> ProcessSpec:
    """The controller service of the block volumes' driver: CSI on one side, the cloud's own service on the other."""
    name = "block-driver"
    argv = [
        *_common(config, paths, name),
        f"--endpoint={paths.block_socket}",
        f"--cloud=unix:{paths.cloud_socket}",
    ]
    return _forked("block_storage", name, HOST, argv, paths, f"unix:{paths.block_socket}")


def csi_controllers(config: ClusterConfig, paths: ClusterPaths) -> ProcessSpec:
    """Provisioner, attacher and resizer; of the driver they know the socket."""
    name = "csi-controllers"
    argv = [
        *_common(config, paths, name),
        *_client(config, paths, name),
        f"--csi-address=unix:{paths.block_socket}",
    ]
    return _forked("csi_controllers", name, HOST, argv, paths)


def block_node(config: ClusterConfig, paths: ClusterPaths, node: NodeConfig) -> ProcessSpec:
    """The driver of one machine, which the kubelet finds by a socket in its folder of plugins."""
    root, name = paths.node(node.name), f"block-driver-{node.name}"
    endpoint = root / "block-csi.sock"
    argv = [
        *_common(config, paths, name),
        f"--endpoint={endpoint}",
        f"--node-id={node.name}",
        f"--devices={root / 'devices'}",
        f"--zone={block_volumes.zone_of(node)}",
        f"--max-volumes={block_volumes.slots_of(node)}",
        f"--registration={root / 'kubelet' / 'plugins_registry' / 'block-reg.sock'}",
        *([f"--filesystem={config.block_filesystem}"] if config.block_filesystem else []),
    ]
    return _forked("block_storage", "block-driver", node.name, argv, paths, f"unix:{endpoint}")


def metrics_server(config: ClusterConfig, paths: ClusterPaths) -> ProcessSpec:
    """One for all nodes; pods may ask it too, by its Service."""
    return _aggregated("metrics_server", "metrics-server", config, paths, config.metrics_port)


def metrics_adapter(config: ClusterConfig, paths: ClusterPaths) -> ProcessSpec:
    """Answers from what Prometheus has scraped."""
    flags = (
        f"--rest-server=https://127.0.0.1:{config.rest_port}",
        f"--prometheus-url=http://127.0.0.1:{config.prometheus_port}",
        f"--config={paths.adapter_rules}",
        f"--sample-max-age={config.rate_window}",
    )
    return _aggregated("metrics_adapter", "metrics-adapter", config, paths, config.adapter_port, *flags)


def _aggregated(
    module: str, name: str, config: ClusterConfig, paths: ClusterPaths, port: int, *flags: str
) -> ProcessSpec:
    listen = f"{config.host_ip if config.has_machines else '127.0.0.1'}:{port}"
    argv = [
        *_common(config, paths, name),
        *_client(config, paths, name),
        f"--listen={listen}",
        f"--tls-cert={paths.pki / f'{name}.crt'}",
        f"--tls-key={paths.pki / f'{name}.key'}",
        f"--requestheader-client-ca={paths.front_proxy / 'ca.crt'}",
        *flags,
    ]
    return _forked(module, name, HOST, argv, paths, f"https://{listen}")


def vertical_autoscaler(config: ClusterConfig, paths: ClusterPaths) -> ProcessSpec:
    """Its webhook is on loopback: only the API server asks it."""
    name, listen = "vertical-pod-autoscaler", f"127.0.0.1:{config.vpa_port}"
    argv = [
        *_common(config, paths, name),
        *_client(config, paths, name),
        f"--rest-server=https://127.0.0.1:{config.rest_port}",
        f"--listen={listen}",
        f"--tls-cert={paths.pki / f'{name}.crt'}",
        f"--tls-key={paths.pki / f'{name}.key'}",
        f"--explain=unix:{explain_socket(paths, name)}",
    ]
    return _forked("vertical_autoscaler", name, HOST, argv, paths, f"https://{listen}")


def prometheus(config: ClusterConfig, paths: ClusterPaths) -> ProcessSpec:
    """On loopback; it keeps a day, and no more than half a gibibyte."""
    address = f"127.0.0.1:{config.prometheus_port}"
    argv = (
        prometheus_binary(),
        f"--config.file={paths.prometheus / 'prometheus.yml'}",
        f"--storage.tsdb.path={paths.prometheus / 'data'}",
        "--storage.tsdb.retention.time=1d",
        "--storage.tsdb.retention.size=512MB",
        f"--web.listen-address={address}",
        "--query.timeout=10s",
        "--query.max-samples=5000000",
        "--log.level=warn",
    )
    url, folder = f"http://{address}", str(paths.prometheus)
    return ProcessSpec("prometheus", "prometheus", HOST, argv, url, health=f"tcp:{address}", folder=folder)


def hollow(config: ClusterConfig, paths: ClusterPaths, wanted: HollowConfig) -> ProcessSpec:
    """The one process that plays all hollow nodes."""
    listen = f"127.0.0.1:{config.hollow_port}"
    argv = [
        *_common(config, paths, "hollow"),
        *_client(config, paths, "hollow"),
        f"--count={wanted.count}",
        f"--listen={listen}",
        f"--cpu={wanted.cpu}",
        f"--memory={wanted.memory}",
        f"--max-pods={wanted.max_pods}",
        f"--zones={wanted.zones}",
        f"--labels={wanted.labels}",
        f"--taints={wanted.taints}",
        *([] if wanted.pods else ["--no-pods"]),
    ]
    return _forked("kubelet.hollow", "hollow", HOST, argv, paths, listen)


def hollow_machines(config: ClusterConfig, paths: ClusterPaths) -> ProcessSpec:
    """The one process that plays the cloud's hollow machines."""
    listen = f"127.0.0.1:{config.hollow_machines_port}"
    name = "hollow-machines"
    argv = [
        *_common(config, paths, name),
        *_client(config, paths, "hollow"),
        f"--roster={paths.hollow_roster}",
        f"--listen={listen}",
    ]
    return _forked("kubelet.hollow", name, HOST, argv, paths, listen)


def explain_socket(paths: ClusterPaths, component: str = "scheduler") -> str:
    """Where a component answers why it decided as it did."""
    return str(paths.run / f"{component}.explain")


def kube_proxy(config: ClusterConfig, paths: ClusterPaths, node: NodeConfig | None) -> ProcessSpec:
    """Services and pod routes of one machine; without a node: of the host, in a table of its own."""
    name = f"kube-proxy-{node.name}" if node else "kube-proxy"
    argv = [
        *_common(config, paths, name),
        *_client(config, paths, "kube-proxy", machine=node is not None),
        f"--cluster-cidr={config.pod_cidr}",
        f"--service-cidr={config.service_cidr}",
        f"--underlay-cidr={config.underlay}",
        f"--table=nanokube-{config.index}" if node is None else "--table=nanokube",
        *([f"--node-name={node.name}"] if node else []),
    ]
    return _forked("kube_proxy", "kube-proxy", node.name if node else HOST, argv, paths)


def resolver(folder: Path = Path("/")) -> Path:
    """A resolv.conf that also works inside machines: systemd-resolved's stub listens on the host's loopback only."""
    usual, real = folder / "etc/resolv.conf", folder / "run/systemd/resolve/resolv.conf"
    try:
        servers = [line.split()[1] for line in usual.read_text().splitlines() if line.startswith("nameserver ")]
    except (OSError, IndexError):
        return usual
    return real if servers and all(each.startswith("127.") for each in servers) and real.exists() else usual


def cri_socket(paths: ClusterPaths, node: NodeConfig) -> str:
    """Where the runtime of a node listens."""
    return str(paths.node(node.name) / "cri.sock")


def worker(config: ClusterConfig, paths: ClusterPaths, node: NodeConfig, cgroup: str) -> list[ProcessSpec]:
    """Runtime, kubelet and kube-proxy of one machine, in starting order."""
    root = paths.node(node.name)
    runtime = [
        *_common(config, paths, f"runtime-{node.name}"),
        f"--listen=unix:{cri_socket(paths, node)}",
        f"--root={root / 'runtime'}",
        f"--state={root / 'state'}",
        f"--image-store={paths.images}",
        f"--node={node.name}",
        f"--cgroup-parent={cgroup}",
        f"--host-netns={paths.host_netns}",
    ]
    kubelet = [
        *_common(config, paths, f"kubelet-{node.name}"),
        *_client(config, paths, f"kubelet-{node.name}", machine=True),
        f"--node-name={node.name}",
        f"--node-ip={config.node_ip(node)}",
        f"--cri=unix:{cri_socket(paths, node)}",
        f"--root={root / 'kubelet'}",
        f"--log-dir={root / 'pod-logs'}",
        f"--listen={config.node_ip(node)}:10250",
        f"--cgroup-root={cgroup}",
        f"--cpu={node.cpu}",
        f"--memory={node.memory}",
        f"--max-pods={node.max_pods}",
        f"--labels={node.labels}",
        f"--taints={node.taints}",
        f"--resolv-conf={resolver()}",
        "--cluster-domain=cluster.local",
        # Machines share the host's disk, which may be fuller than upstream lets a node's be.
        "--eviction-hard=memory.available<100Mi,nodefs.available<1%,nodefs.inodesFree<1%",
        "--image-gc-high-threshold=100",
    ]
    address = f"{config.node_ip(node)}:10250"
    return [
        _forked("runtime", "runtime", node.name, runtime, paths, f"unix:{cri_socket(paths, node)}"),
        # A killed kubelet stays dead: that is the user's experiment. `nanokube node start` brings it back.
        _forked("kubelet", "kubelet", node.name, kubelet, paths, address, restart=False),
        kube_proxy(config, paths, node),
        *([block_node(config, paths, node)] if config.block_volumes else []),
    ]
