"""The ClusterRoles of upstream's controllers, as data in the notation of `policy.py`.

Each is called `system:controller:<name>` and bound to the ServiceAccount `<name>` in kube-system. Our own controllers
do not need them; programs that act under these accounts (and people who read the roles) do.
"""

from __future__ import annotations

from collections.abc import Mapping

CONTROLLER = "system:controller:"

_EVENTS = "create,patch,update | -,events.k8s.io | events"

CONTROLLER_ROLES: Mapping[str, str] = {
    "attachdetach-controller": f"""
        list,watch | - | persistentvolumeclaims,persistentvolumes
        get,list,watch | - | nodes
        patch,update | - | nodes/status
        list,watch | - | pods
        {_EVENTS}
        create,delete,get,list,watch | storage.k8s.io | volumeattachments
        R | storage.k8s.io | csidrivers
        R | storage.k8s.io | csinodes
    """,
    "certificate-controller": f"""
        delete,get,list,watch | certificates.k8s.io | certificatesigningrequests
        update | certificates.k8s.io | certificatesigningrequests/approval,certificatesigningrequests/status
        approve | certificates.k8s.io | signers | kubernetes.io/kube-apiserver-client-kubelet
        sign | certificates.k8s.io | signers | kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown
        create | authorization.k8s.io | subjectaccessreviews
        {_EVENTS}
    """,  # noqa: E501  one rule, one line
    "clusterrole-aggregation-controller": (
        "escalate,get,list,patch,update,watch | rbac.authorization.k8s.io | clusterroles"
    ),
    "cronjob-controller": f"""
        get,list,update,watch | batch | cronjobs
        create,delete,get,list,patch,update,watch | batch | jobs
        update | batch | cronjobs/status
        update | batch | cronjobs/finalizers
        delete,list,watch | - | pods
        {_EVENTS}
    """,
    "daemon-set-controller": f"""
        R | apps,extensions | daemonsets
        update | apps,extensions | daemonsets/status
        update | apps,extensions | daemonsets/finalizers
        list,watch | - | nodes
        create,delete,list,patch,watch | - | pods
        create | - | pods/binding
        create,delete,get,list,patch,update,watch | apps | controllerrevisions
        {_EVENTS}
    """,
    "deployment-controller": f"""
        get,list,update,watch | apps,extensions | deployments
        update | apps,extensions | deployments/status
        update | apps,extensions | deployments/finalizers
        create,delete,get,list,patch,update,watch | apps,extensions | replicasets
        get,list,update,watch | - | pods
        {_EVENTS}
    """,
    "device-taint-eviction-controller": f"""
        delete,get,list,watch | - | pods
        patch,update | - | pods/status
        R | resource.k8s.io | resourceclaims
        R | resource.k8s.io | resourceslices
        R | resource.k8s.io | deviceclasses
        R | resource.k8s.io | devicetaintrules
        {_EVENTS}
    """,
    "disruption-controller": f"""
        R | apps,extensions | deployments
        R | apps,extensions | replicasets
        R | - | replicationcontrollers
        R | policy | poddisruptionbudgets
        R | apps | statefulsets
        update | policy | poddisruptionbudgets/status
        patch,update | - | pods/status
        get | * | */scale
        {_EVENTS}
    """,
    "endpoint-controller": f"""
        R | - | pods,services
        create,delete,get,list,update,watch | - | endpoints
        create | - | endpoints/restricted
        {_EVENTS}
    """,
    "endpointslice-controller": f"""
        R | - | nodes,pods,services
        update | - | services/finalizers
        create,delete,get,list,update,watch | discovery.k8s.io | endpointslices
        {_EVENTS}
    """,
    "endpointslicemirroring-controller": f"""
        R | - | endpoints,services
        update | - | services/finalizers
        update | - | endpoints/finalizers
        create,delete,get,list,update,watch | discovery.k8s.io | endpointslices
        {_EVENTS}
    """,
    "ephemeral-volume-controller": f"""
        R | - | pods
        update | - | pods/finalizers
        create,get,list,watch | - | persistentvolumeclaims
        {_EVENTS}
    """,
    "expand-controller": f"""
        get,list,patch,update,watch | - | persistentvolumes
        patch,update | - | persistentvolumeclaims/status
        R | - | persistentvolumeclaims
        {_EVENTS}
        get | - | services
    """,
    "generic-garbage-collector": f"""
        delete,get,list,patch,update,watch | * | *
        {_EVENTS}
    """,
    "horizontal-pod-autoscaler": f"""
        R | autoscaling | horizontalpodautoscalers
        update | autoscaling | horizontalpodautoscalers/status
        get,update | * | */scale
        list,watch | - | pods
        list,watch | metrics.k8s.io | pods
        R | custom.metrics.k8s.io | *
        R | external.metrics.k8s.io | *
        {_EVENTS}
    """,
    "job-controller": f"""
        get,list,patch,update,watch | batch | jobs
        update | batch | jobs/status
        update | batch | jobs/finalizers
        create,delete,list,patch,watch | - | pods
        {_EVENTS}
    """,
    "legacy-service-account-token-cleaner": """
        get | - | configmaps | kube-apiserver-legacy-service-account-token-tracking
        delete,patch | - | secrets
    """,
    "namespace-controller": """
        delete,get,list,watch | - | namespaces
        update | - | namespaces/finalize,namespaces/status
        delete,deletecollection,get,list,watch | * | *
    """,
    "node-controller": f"""
        delete,get,list,patch,update,watch | - | nodes
        patch,update | - | nodes/status
        patch,update | - | pods/status
        delete,get,list,watch | - | pods
        {_EVENTS}
    """,
    "persistent-volume-binder": f"""
        create,delete,get,list,update,watch | - | persistentvolumes
        update | - | persistentvolumes/status
        get,list,update,watch | - | persistentvolumeclaims
        update | - | persistentvolumeclaims/status
        create,delete,get,list,watch | - | pods
        R | storage.k8s.io | storageclasses
        list,watch | - | nodes
        {_EVENTS}
        watch | - | events
        get | - | services
    """,
    "pod-garbage-collector": """
        delete,list,watch | - | pods
        get,list,watch | - | nodes
        patch | - | pods/status
    """,
    "pv-protection-controller": f"""
        get,list,update,watch | - | persistentvolumes
        {_EVENTS}
    """,
    "pvc-protection-controller": f"""
        get,list,update,watch | - | persistentvolumeclaims
        R | - | pods
        {_EVENTS}
    """,
    "replicaset-controller": f"""
        get,list,update,watch | apps,extensions | replicasets
        update | apps,extensions | replicasets/status
        update | apps,extensions | replicasets/finalizers
        create,delete,list,patch,watch | - | pods
        {_EVENTS}
    """,
    "replication-controller": f"""
        get,list,update,watch | - | replicationcontrollers
        update | - | replicationcontrollers/status
        update | - | replicationcontrollers/finalizers
        create,delete,list,patch,watch | - | pods
        {_EVENTS}
    """,
    "resource-claim-controller": f"""
        R | - | pods
        update | - | pods/finalizers
        create,delete,get,list,watch | resource.k8s.io | resourceclaims
        patch,update | resource.k8s.io | resourceclaims,resourceclaims/status
        patch,update | - | pods/status
        {_EVENTS}
    """,
    "resourcequota-controller": f"""
        list,watch | * | *
        update | - | resourcequotas/status
        {_EVENTS}
    """,
    "root-ca-cert-publisher": f"""
        create,update | - | configmaps
        {_EVENTS}
    """,
    "route-controller": f"""
        list,watch | - | nodes
        patch | - | nodes/status
        {_EVENTS}
    """,
    "selinux-warning-controller": f"""
        {_EVENTS}
        R | - | persistentvolumes
        R | - | persistentvolumeclaims
        R | - | pods
        R | storage.k8s.io | csidrivers
    """,
    "service-account-controller": f"""
        create | - | serviceaccounts
        {_EVENTS}
    """,
    "service-cidrs-controller": f"""
        get,list,patch,update,watch | networking.k8s.io | servicecidrs
        patch,update | networking.k8s.io | servicecidrs/finalizers
        patch,update | networking.k8s.io | servicecidrs/status
        R | networking.k8s.io | ipaddresses
        {_EVENTS}
    """,
    "service-controller": f"""
        R | - | services
        patch,update | - | services/status
        list,watch | - | nodes
        {_EVENTS}
    """,
    "statefulset-controller": f"""
        list,watch | - | pods
        R | apps | statefulsets
        update | apps | statefulsets/status
        update | apps | statefulsets/finalizers
        create,delete,get,patch,update | - | pods
        create,delete,get,list,patch,update,watch | apps | controllerrevisions
        create,get,list,watch | - | persistentvolumeclaims
        delete,update | - | persistentvolumeclaims
        update | - | pods/finalizers
        {_EVENTS}
    """,
    "ttl-after-finished-controller": f"""
        delete,get,list,watch | batch | jobs
        {_EVENTS}
    """,
    "ttl-controller": f"""
        list,patch,update,watch | - | nodes
        {_EVENTS}
    """,
    "validatingadmissionpolicy-status-controller": f"""
        R | admissionregistration.k8s.io | validatingadmissionpolicies
        get,patch,update | admissionregistration.k8s.io | validatingadmissionpolicies/status
        {_EVENTS}
    """,
    "volumeattributesclass-protection-controller": f"""
        R | - | persistentvolumeclaims
        R | - | persistentvolumes
        get,list,update,watch | storage.k8s.io | volumeattributesclasses
        {_EVENTS}
    """,
}
