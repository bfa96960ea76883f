"""The names of karpenter.sh/v1 and of our cloud: labels, taints, annotations, finalizers, condition types."""

from __future__ import annotations

from typing import Final

GROUP: Final = "karpenter.sh"
VERSION: Final = "v1"
CLOUD_GROUP: Final = "cloud.nanokube.io"

# Labels
NODE_POOL: Final = "karpenter.sh/nodepool"
CAPACITY_TYPE: Final = "karpenter.sh/capacity-type"
REGISTERED: Final = "karpenter.sh/registered"
INITIALIZED: Final = "karpenter.sh/initialized"
DO_NOT_SYNC_TAINTS: Final = "karpenter.sh/do-not-sync-taints"
NODE_CLASS: Final = "cloud.nanokube.io/nanokubenodeclass"
INSTANCE_TYPE: Final = "node.kubernetes.io/instance-type"
ZONE: Final = "topology.kubernetes.io/zone"
REGION: Final = "topology.kubernetes.io/region"
ARCH: Final = "kubernetes.io/arch"
OS: Final = "kubernetes.io/os"
HOSTNAME: Final = "kubernetes.io/hostname"
EXCLUDE_BALANCERS: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
WELL_KNOWN: Final = frozenset(
    {NODE_POOL, ZONE, REGION, INSTANCE_TYPE, ARCH, OS, CAPACITY_TYPE, "node.kubernetes.io/windows-build", NODE_CLASS}
)
NORMALIZED: Final = {
    "failure-domain.beta.kubernetes.io/zone": ZONE,
    "failure-domain.beta.kubernetes.io/region": REGION,
    "beta.kubernetes.io/arch": ARCH,
    "beta.kubernetes.io/os": OS,
    "beta.kubernetes.io/instance-type": INSTANCE_TYPE,
}
"""Older names of labels, and what they mean."""

KUBERNETES: Final = (
    "beta.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "node.kubernetes.io/windows-build",
)
"""Labels of Kubernetes' own domain that pools and claims may have requirements about."""


def restricted(label: str) -> bool:
    """Whether pools and claims may have no requirement about a label; the rules of the definitions say the same."""
    domain = label.partition("/")[0]
    if domain.endswith("kubernetes.io"):
        ours = label in KUBERNETES or domain.endswith(("node.kubernetes.io", "node-restriction.kubernetes.io"))
        return not ours or label == HOSTNAME
    if domain.endswith("k8s.io"):
        return not domain.endswith("kops.k8s.io")
    return domain.endswith("karpenter.sh") and label not in (CAPACITY_TYPE, NODE_POOL)


SPOT, ON_DEMAND = "spot", "on-demand"

# Taints
UNREGISTERED: Final = "karpenter.sh/unregistered"
DISRUPTED: Final = "karpenter.sh/disrupted"

# Annotations
DO_NOT_DISRUPT: Final = "karpenter.sh/do-not-disrupt"
POOL_HASH: Final = "karpenter.sh/nodepool-hash"
POOL_HASH_VERSION: Final = "karpenter.sh/nodepool-hash-version"
HASH_VERSION: Final = "v3"
CLASS_HASH: Final = "cloud.nanokube.io/nanokubenodeclass-hash"
TERMINATION_TIME: Final = "karpenter.sh/nodeclaim-termination-timestamp"

FINALIZER: Final = "karpenter.sh/termination"

# Condition types of NodeClaims
LAUNCHED, REGISTERED_CONDITION, INITIALIZED_CONDITION, READY = "Launched", "Registered", "Initialized", "Ready"
CONSOLIDATABLE, DRIFTED = "Consolidatable", "Drifted"
DRAINED, VOLUMES_DETACHED, INSTANCE_TERMINATING = "Drained", "VolumesDetached", "InstanceTerminating"
DISRUPTION_REASON: Final = "DisruptionReason"
# … and of NodePools
VALIDATION_SUCCEEDED, NODE_CLASS_READY = "ValidationSucceeded", "NodeClassReady"
NODE_REGISTRATION_HEALTHY: Final = "NodeRegistrationHealthy"
