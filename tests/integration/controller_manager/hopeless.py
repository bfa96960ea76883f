"""Objects that no controller can ever satisfy."""

from __future__ import annotations

import base64
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.attachments import MANAGED

NS = "hopeless"

Obj = dict[str, Any]


def obj(
    kind: str, name: str, api_version: str = "v1", namespaced: bool = True, meta: Obj | None = None, **rest: Any
) -> Obj:
    metadata = {"name": name, **({"namespace": NS} if namespaced else {}), **(meta or {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def template(name: str, restart: str | None = None, **spec: Any) -> Obj:
    fields = {"containers": [{"name": "c", "image": "i"}], **({"restartPolicy": restart} if restart else {}), **spec}
    return {"metadata": {"labels": {"app": name}}, "spec": fields}


def selector(name: str) -> Obj:
    return {"matchLabels": {"app": name}}


def workloads(why: str, **spec: Any) -> list[Obj]:
    """One of every kind that makes pods, all with the same trouble."""

    def keeper(kind: str, **more: Any) -> Obj:
        name = f"{why}-{kind.lower()}"
        return obj(kind, name, "apps/v1", spec={"selector": selector(name), "template": template(name, **spec), **more})

    job = {"template": template(f"{why}-job", "Never", **spec), "parallelism": 3, "completions": 3}
    rc = template(f"{why}-rc", **spec)
    return [
        keeper("Deployment", replicas=3, progressDeadlineSeconds=60),
        keeper("ReplicaSet", replicas=30),
        keeper("DaemonSet"),
        keeper("StatefulSet", serviceName="x", replicas=3, podManagementPolicy="Parallel"),
        obj(
            "ReplicationController", f"{why}-rc", spec={"replicas": 3, "template": rc, "selector": {"app": f"{why}-rc"}}
        ),
        obj("Job", f"{why}-job", "batch/v1", spec=job),
        obj(
            "CronJob",
            f"{why}-cron",
            "batch/v1",
            spec={"schedule": "* * * * *", "jobTemplate": {"spec": job}, "concurrencyPolicy": "Forbid"},
        ),
    ]


def impossible() -> Obj:
    terms = [{"matchExpressions": [{"key": "no-such", "operator": "In", "values": [f"v{i}" for i in range(500)]}]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def wish() -> str:
    """A request for a certificate that its signer does not grant."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


def troubles() -> list[Obj]:
    """What nobody can ever bring about."""
    owner = {"apiVersion": "no.such/v1", "kind": "Unknown", "name": "x", "uid": "11111111-1111-1111-1111-111111111111"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    huge = {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [f"v{i}" for i in range(2000)]}]}
    ephemeral = {"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}
    rbac = "rbac.authorization.k8s.io/v1"
    return [
        *workloads("refused", serviceAccountName="nobody"),
        *workloads("unschedulable", affinity=impossible()),
        obj(
            "StatefulSet",
            "taken",
            "apps/v1",
            spec={"selector": selector("taken"), "serviceName": "", "template": template("taken")},
        ),
        obj("Pod", "taken-0", spec=template("other")["spec"]),
        obj(
            "PodDisruptionBudget",
            "bare",
            "policy/v1",
            spec={"maxUnavailable": 1, "selector": {"matchLabels": {"bare": ""}}},
        ),
        obj("PodDisruptionBudget", "huge", "policy/v1", spec={"minAvailable": "50%", "selector": huge}),
        obj(
            "Pod",
            "bare",
            meta={"labels": {"bare": ""}, "finalizers": ["example.com/held"], "ownerReferences": [owner]},
            spec=template("bare")["spec"],
        ),
        obj(
            "HorizontalPodAutoscaler",
            "lost",
            "autoscaling/v2",
            spec={
                "maxReplicas": 3,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "no-such"},
            },
        ),
        obj("Service", "lost", spec={"selector": {"app": "no-such"}, "ports": [{"port": 1, "targetPort": "no-such"}]}),
        obj(
            "Service",
            "shared",
            meta={"annotations": {"service.kubernetes.io/topology-mode": "Auto"}},
            spec={"selector": {"bare": ""}, "ports": [{"port": 1}]},
        ),
        obj("Service", "by-hand", spec={"ports": [{"port": 1}]}),
        obj("Endpoints", "by-hand", subsets=[{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 1}]}]),
        obj("ResourceQuota", "none", spec={"hard": {"count/no.such.example": "0", "pods": "1000"}}),
        obj("PersistentVolumeClaim", "no-class", spec={**claim, "storageClassName": "no-such"}),
        obj(
            "PersistentVolume",
            "lost",
            namespaced=False,
            spec={
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/x"},
                "claimRef": {"kind": "PersistentVolumeClaim", "namespace": NS, "name": "no-such", "uid": "1"},
            },
        ),
        obj("PersistentVolumeClaim", "far", spec={**claim, "storageClassName": "", "volumeName": "far"}),
        obj(
            "PersistentVolume",
            "far",
            namespaced=False,
            spec={
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "csi": {"driver": "no.such", "volumeHandle": "far"},
                "claimRef": {"kind": "PersistentVolumeClaim", "namespace": NS, "name": "far"},
            },
        ),
        obj("Node", "far", namespaced=False, meta={"annotations": {MANAGED: "true"}}),
        obj(
            "Pod",
            "far",
            spec={
                **template("far", tolerations=[{"operator": "Exists"}])["spec"],
                "nodeName": "far",
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "far"}}],
            },
        ),
        obj("PersistentVolumeClaim", "scratch-v", spec=claim),
        obj("Pod", "scratch", spec={**template("scratch")["spec"], "volumes": [ephemeral]}),
        obj(
            "ClusterRole",
            "round",
            rbac,
            namespaced=False,
            meta={"labels": {"round": ""}},
            rules=[],
            aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"round": ""}}]},
        ),
        obj(
            "ValidatingAdmissionPolicy",
            "odd",
            "admissionregistration.k8s.io/v1",
            namespaced=False,
            spec={
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": ["no.such"],
                            "apiVersions": ["v1"],
                            "operations": ["CREATE"],
                            "resources": ["things"],
                        }
                    ]
                },
                "validations": [{"expression": "object.spec.x > 'y'"}],
            },
        ),
        obj(
            "Secret",
            "no-account",
            meta={"annotations": {"kubernetes.io/service-account.name": "nobody"}},
            type="Opaque",
        ),
        obj(
            "Secret",
            "bootstrap-token-broken",
            meta={"namespace": "kube-system"},
            type="bootstrap.kubernetes.io/token",
            stringData={"token-id": "broken", "expiration": "never"},
        ),
        obj("ConfigMap", "cluster-info", meta={"namespace": "kube-public"}, data={"kubeconfig": "{"}),
        obj(
            "VolumeAttributesClass",
            "odd",
            "storage.k8s.io/v1",
            namespaced=False,
            driverName="no.such",
            parameters={"a": "b"},
        ),
        obj(
            "CertificateSigningRequest",
            "odd",
            "certificates.k8s.io/v1",
            namespaced=False,
            spec={"request": wish(), "signerName": "kubernetes.io/kubelet-serving", "usages": ["client auth"]},
        ),
        obj(
            "Pod",
            "unwanted",
            meta={"finalizers": ["example.com/held"]},
            spec={**template("unwanted")["spec"], "nodeName": "odd-range"},
        ),
        obj(
            "Job",
            "over",
            "batch/v1",
            meta={"finalizers": ["example.com/held"]},
            spec={
                "ttlSecondsAfterFinished": 0,
                "backoffLimit": 0,
                "activeDeadlineSeconds": 1,
                "template": template("over", "Never", affinity=impossible()),
            },
        ),
        obj("Node", "mute", namespaced=False, meta={"labels": {"topology.kubernetes.io/zone": "z"}}),
        obj(
            "Node",
            "odd-range",
            namespaced=False,
            spec={
                "podCIDR": "10.99.0.0/24",
                "podCIDRs": ["10.99.0.0/24"],
                "taints": [{"key": "k", "effect": "NoExecute"}],
            },
        ),
        obj("Namespace", "stuck", namespaced=False),
        obj("ConfigMap", "held", meta={"namespace": "stuck", "finalizers": ["example.com/held"]}),
    ]
