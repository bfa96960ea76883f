"""Debugging, resizing and certificates as a user does them with the stock kubectl."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.harness.nanokube import Cluster, eventually

SLEEP = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"
SMALL = {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}}


def run(cluster: Cluster, namespace: str, name: str = "web") -> None:
    spec = {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "web", "image": "busybox", "command": ["sh", "-c", SLEEP], "resources": SMALL}],
    }
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body))
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", f"pod/{name}", "--timeout=30s")


def test_a_debugger_sees_the_processes_of_its_target(cluster: Cluster, namespace: str) -> None:
    run(cluster, namespace)
    script = "ps -o args; readlink /proc/1/root >/dev/null && echo see-root"
    out = cluster.kubectl(
        "debug", "-n", namespace, "web", "--image=busybox", "--target=web", "--profile=general", "-i", "--",
        "sh", "-c", f"sleep 1; {script}",
    )  # fmt: skip
    assert "trap 'exit 0' TERM" in out or "sh -c trap" in out
    pod = json.loads(cluster.kubectl("get", "pod", "-n", namespace, "web", "-o", "json"))
    (added,) = pod["spec"]["ephemeralContainers"]
    assert added["targetContainerName"] == "web"

    def ended() -> bool:
        found = json.loads(cluster.kubectl("get", "pod", "-n", namespace, "web", "-o", "json"))["status"]
        (status,) = found["ephemeralContainerStatuses"]
        return "terminated" in status["state"] and found["containerStatuses"][0]["restartCount"] == 0

    eventually(ended, "the debugger's end, and nothing else")
    assert "see-root" in cluster.kubectl("logs", "-n", namespace, "web", "-c", added["name"])


def test_a_copy_to_debug_and_a_pod_on_the_node(cluster: Cluster, namespace: str) -> None:
    run(cluster, namespace)
    cluster.kubectl(
        "debug", "-n", namespace, "web", "--copy-to=web-copy", "--container=web", "--profile=general", "--",
        "sh", "-c", SLEEP,
    )  # fmt: skip
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/web-copy", "--timeout=30s")
    node = cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    out = cluster.kubectl(
        "debug", "-n", namespace, f"node/{node}", "--image=busybox", "--profile=general", "-i", "--",
        "sh", "-c", "sleep 1; ls -d /host/etc; hostname",
    )  # fmt: skip
    assert "/host/etc" in out
    assert node in out


def test_a_resize_reaches_the_kernel_without_a_restart(cluster: Cluster, namespace: str) -> None:
    run(cluster, namespace)
    patch = {"spec": {"containers": [{"name": "web", "resources": {"limits": {"cpu": "200m", "memory": "96Mi"}}}]}}
    cluster.kubectl("patch", "pod", "-n", namespace, "web", "--subresource", "resize", "-p", json.dumps(patch))
    read = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true"

    def limit() -> str:
        return cluster.kubectl("exec", "-n", namespace, "web", "--", "sh", "-c", read).strip()

    eventually(lambda: limit() == str(96 << 20), "the new memory limit")

    def told() -> bool:
        found = json.loads(cluster.kubectl("get", "pod", "-n", namespace, "web", "-o", "json"))["status"]
        (status,) = found["containerStatuses"]
        kinds = {each["type"] for each in found["conditions"]}
        return (
            status["resources"]["limits"] == {"cpu": "200m", "memory": "96Mi"}
            and status["restartCount"] == 0
            and not kinds & {"PodResizePending", "PodResizeInProgress"}
        )

    eventually(told, "the resources in the status")


def test_a_person_gets_a_certificate_by_request(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "zoe")])
    pem = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    name = f"zoe-{namespace}"
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(pem.public_bytes(serialization.Encoding.PEM)).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        },
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    cluster.kubectl("certificate", "approve", name)

    def certificate() -> str:
        return cluster.kubectl("get", "csr", name, "-o", "jsonpath={.status.certificate}")

    eventually(certificate, "the certificate")
    cert_path, key_path = tmp_path / "zoe.crt", tmp_path / "zoe.key"
    cert_path.write_bytes(base64.b64decode(certificate()))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    file = tmp_path / "zoe.kubeconfig"
    config["users"][0]["user"] = {"client-certificate": str(cert_path), "client-key": str(key_path)}
    file.write_text(json.dumps(config))
    assert "zoe" in cluster.kubectl("--kubeconfig", str(file), "auth", "whoami")
    assert "Approved,Issued" in cluster.kubectl("get", "csr", name)
