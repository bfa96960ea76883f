"""The certificates, keys and tokens of a cluster: who each process is.

Owns the pki folder. Everything is made once, at the first `up`; a node's certificate when the node is added.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from cli.layout import ClusterConfig, ClusterPaths, NodeConfig
from machinery.tls import CertificateAuthority, write_private

ADMIN = "admin"
ADMIN_GROUP = "system:masters"


def ensure(config: ClusterConfig, paths: ClusterPaths) -> None:
    """Make what is missing."""
    authority: CertificateAuthority | None = None

    def signer() -> CertificateAuthority:
        nonlocal authority
        if authority is None:
            present = (paths.pki / "ca.key").exists()
            authority = CertificateAuthority.load(paths.pki) if present else CertificateAuthority.create(paths.pki)
        return authority

    if not (paths.pki / "ca.key").exists():
        for stale in paths.pki.glob("*.crt"):  # certificates of an authority that is gone
            stale.unlink()
        signer()
    for name, common_name, groups in _clients(config):
        if not (paths.pki / f"{name}.crt").exists():
            signer().issue_to(name, common_name, groups)
    if not (paths.pki / "apiserver.crt").exists():
        signer().issue_to("apiserver", "kube-apiserver", (), _apiserver_names(config), client=False, server=True)
    for name, server in _accounts(config):
        if not (paths.pki / f"{name}.crt").exists():
            groups = ("system:serviceaccounts", "system:serviceaccounts:kube-system")
            hosts = [f"{name}.kube-system.svc", "127.0.0.1"] if server else []
            signer().issue_to(name, f"system:serviceaccount:kube-system:{name}", groups, hosts, server=server)
    _ensure_front_proxy(paths.front_proxy)
    if (config.hollow is not None or config.hollow_machines) and not (paths.pki / "hollow.crt").exists():
        signer().issue_to("hollow", "system:hollow-nodes", (), ["127.0.0.1"], server=True)
    for node in config.nodes:
        if not (paths.pki / f"kubelet-{node.name}.crt").exists():
            _issue_node(signer(), config, node)
    if not (paths.pki / "service-account.key").exists():
        _signing_key(paths.pki / "service-account.key")
    if not (paths.pki / "tokens.csv").exists():
        write_private(paths.pki / "tokens.csv", f'{secrets.token_hex(16)},admin,admin,"{ADMIN_GROUP}"\n'.encode())


def _ensure_front_proxy(folder: Path) -> None:
    """An authority of its own: whoever has its client certificate may speak for every user."""
    if not (folder / "client.crt").exists():
        CertificateAuthority.create(folder, "front-proxy-ca").issue_to("client", "front-proxy-client")


def _clients(config: ClusterConfig) -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        (ADMIN, "kubernetes-admin", (ADMIN_GROUP,)),
        ("scheduler", "system:kube-scheduler", ()),
        ("controller-manager", "system:kube-controller-manager", ()),
        ("cloud", "system:cloud-controller-manager", ()),
        ("kube-proxy", "system:kube-proxy", ("system:node-proxier",)),
        ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", (ADMIN_GROUP,)),
    ]


def _accounts(config: ClusterConfig) -> list[tuple[str, bool]]:
    """Service accounts of kube-system that processes of the host act as, and whether they are servers too."""
    return [
        ("metrics-server", True),
        ("cluster-autoscaler", False),
        *([("metrics-adapter", True), ("prometheus", False)] if config.prometheus else []),
        *([("vertical-pod-autoscaler", True)] if config.vpa else []),
        *([("nodepool-autoscaler", False)] if config.nodepools else []),
        *([("csi-controllers", False)] if config.block_volumes else []),
    ]


def _apiserver_names(config: ClusterConfig) -> list[str]:
    service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    return ["127.0.0.1", "localhost", config.host_ip, config.kubernetes_service_ip, *service]


def _issue_node(authority: CertificateAuthority, config: ClusterConfig, node: NodeConfig) -> None:
    names = [node.name, config.node_ip(node)]
    authority.issue_to(f"kubelet-{node.name}", f"system:node:{node.name}", ("system:nodes",), names, server=True)


def _signing_key(path: Path) -> None:
    """The key that signs service account tokens (RS256 is what every verifier knows)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    write_private(path, pem)
