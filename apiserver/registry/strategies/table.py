"""The table from resource to strategy: regular kinds are a row of `Rules`, irregular ones a class.

Owns which kind gets which rules and nothing else. A new regular kind is one row here. Called by `strategy_for`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from api.resources import lookup
from apiserver.registry.defaults import core as core_defaults
from apiserver.registry.defaults import extensions as extension_defaults
from apiserver.registry.defaults import network as network_defaults
from apiserver.registry.defaults import storage as storage_defaults
from apiserver.registry.defaults import workloads as workload_defaults
from apiserver.registry.strategies import workload_warnings
from apiserver.registry.strategies.api_services import APIServiceStrategy
from apiserver.registry.strategies.certificates import CertificateRequestStrategy
from apiserver.registry.strategies.crds import CustomResourceDefinitionStrategy
from apiserver.registry.strategies.custom import CustomResourceStrategy
from apiserver.registry.strategies.daemon_sets import DaemonSetStrategy
from apiserver.registry.strategies.events import EventStrategy
from apiserver.registry.strategies.jobs import JobStrategy
from apiserver.registry.strategies.namespaces import NamespaceStrategy
from apiserver.registry.strategies.pod_warnings import node_warnings
from apiserver.registry.strategies.pods import PodStrategy
from apiserver.registry.strategies.services import ServiceStrategy
from apiserver.registry.strategies.volumes import (
    ClaimStrategy,
    VolumeStrategy,
)
from apiserver.registry.strategy import PLAIN, WHOLE_METADATA, Rules, Strategy
from apiserver.registry.validation import (
    autoscaling,
    batch,
    claim_status,
    core,
    devices,
    endpoints,
    extensions,
    flowcontrol,
    limits,
    network,
    rbac,
    resource_slices,
    storage_classes,
    workloads,
)
from apiserver.registry.validation.metadata import Passes
from apiserver.registry.validation.names import dns_label, ip_name, path_segment

if TYPE_CHECKING:
    from api.resources import Resource

Obj = dict[str, Any]


def _spec_text(label: str) -> Callable[[Obj], str]:
    field = label.removeprefix("spec.")
    return lambda obj: str((obj.get("spec") or {}).get(field) or "")


_WEBHOOKS = Rules(
    passes=Passes(1, 1, standard=False),
    generation=True,
    desired_state=("webhooks",),
    allow_unconditional_update=False,
    default=extension_defaults.default_webhooks,
    validate=extensions.validate_webhooks,
    validate_update=extensions.validate_webhooks_update,
)
_NAMED_TEMPLATE = workload_warnings.of_template("spec", "template", named=True)

_RULES: dict[tuple[str, str], Rules] = {
    ("apps", "deployments"): Rules(
        generation=True,
        annotations_count=True,
        has_status=True,
        new_status={},
        default=workload_defaults.default_deployment,
        validate=workloads.validate_deployment,
        validate_update=workloads.validate_deployment_update,
        validate_status=workloads.validate_workload_status,
        status_keeps=("labels",),
        warnings=_NAMED_TEMPLATE,
    ),
    ("apps", "replicasets"): Rules(
        passes=Passes(2, 1),
        looks=2,
        generation=True,
        has_status=True,
        new_status={"replicas": 0},
        default=workload_defaults.default_replica_set,
        validate=workloads.validate_replica_set,
        validate_update=workloads.validate_replica_set_update,
        validate_status=workloads.validate_workload_status,
        warnings=_NAMED_TEMPLATE,
    ),
    ("apps", "statefulsets"): Rules(
        generation=True,
        has_status=True,
        name=dns_label,
        new_status={"replicas": 0, "availableReplicas": 0},
        default=workload_defaults.default_stateful_set,
        validate=workloads.validate_stateful_set,
        validate_update=workloads.validate_stateful_set_update,
        validate_status=workloads.validate_workload_status,
        warnings=workload_warnings.stateful_set_warnings,
    ),
    ("apps", "controllerrevisions"): Rules(
        passes=Passes(2, 1),
        validate=workloads.validate_revision,
        validate_update=workloads.validate_revision_update,
    ),
    ("", "replicationcontrollers"): Rules(
        passes=Passes(2, 1),
        looks=2,
        generation=True,
        has_status=True,
        new_status={"replicas": 0},
        default=workload_defaults.default_replication_controller,
        validate=workloads.validate_replication_controller,
        validate_status=workloads.validate_workload_status,
        fields={"status.replicas": lambda obj: str((obj.get("status") or {}).get("replicas") or 0)},
        warnings=_NAMED_TEMPLATE,
    ),
    ("", "podtemplates"): Rules(
        generation=True,
        desired_state=("template",),
        default=workload_defaults.default_pod_template,
        validate=workloads.validate_pod_template,
        warnings=workload_warnings.of_template("template"),
    ),
    ("", "configmaps"): Rules(
        passes=Passes(2, 1),
        validate=core.validate_config_map,
        validate_update=core.validate_config_map_update,
    ),
    ("", "secrets"): Rules(
        passes=Passes(2, 1),
        default=core_defaults.default_secret,
        validate=core.validate_secret,
        validate_update=core.validate_secret_update,
        fields={"type": lambda obj: str(obj.get("type") or "")},
    ),
    ("", "serviceaccounts"): Rules(passes=Passes(2, 1), prepare=core_defaults.trim_secret_references),
    ("", "nodes"): Rules(
        passes=Passes(2, 1),
        has_status=True,
        status_at_creation=True,
        default=core_defaults.default_node,
        prepare=core_defaults.drop_node_configuration,
        validate=core.validate_node,
        validate_update=core.validate_node_update,
        validate_status=core.validate_node_change,
        fields={"spec.unschedulable": lambda obj: "true" if (obj.get("spec") or {}).get("unschedulable") else "false"},
        warnings=node_warnings,
    ),
    ("", "endpoints"): Rules(
        passes=Passes(2, 1),
        allow_create_on_update=True,
        default=core_defaults.default_endpoints,
        validate=endpoints.validate_endpoints,
        warnings=endpoints.endpoints_warnings,
    ),
    ("discovery.k8s.io", "endpointslices"): Rules(
        passes=Passes(1, 1),
        generation=True,
        desired_state=(),
        default=core_defaults.default_endpoint_slice,
        validate=endpoints.validate_slice,
        validate_update=endpoints.validate_slice_update,
        warnings=endpoints.endpoint_slice_warnings,
    ),
    ("coordination.k8s.io", "leases"): Rules(
        allow_create_on_update=True,
        allow_unconditional_update=False,
        default=core_defaults.default_lease,
        validate=core.validate_lease,
    ),
    ("", "limitranges"): Rules(
        passes=Passes(1, 1),
        allow_create_on_update=True,
        default=core_defaults.default_limit_range,
        validate=limits.validate_limit_range,
    ),
    ("", "resourcequotas"): Rules(
        has_status=True,
        new_status={},
        default=core_defaults.default_quota,
        validate=limits.validate_quota,
        validate_update=limits.validate_quota_update,
        validate_status=limits.validate_quota_status,
    ),
    ("scheduling.k8s.io", "priorityclasses"): Rules(
        generation=True,
        desired_state=("status",),  # which it has not: upstream starts to count and never goes on
        default=core_defaults.default_priority_class,
        validate=core.validate_priority_class,
        validate_update=core.validate_priority_class_update,
    ),
    ("node.k8s.io", "runtimeclasses"): Rules(
        warnings=storage_classes.runtime_class_warnings,
        passes=Passes(2, 1),
        allow_create_on_update=True,
        allow_unconditional_update=False,
        validate=core.validate_runtime_class,
        validate_update=core.validate_runtime_class_update,
    ),
    ("networking.k8s.io", "ingresses"): Rules(
        passes=Passes(2, 1),
        generation=True,
        has_status=True,
        new_status={"loadBalancer": {}},
        default=network_defaults.default_ingress,
        validate=network.validate_ingress_create,
        validate_update=network.validate_ingress_update,
        validate_status=network.validate_ingress_status,
        warnings=network.ingress_warnings,
    ),
    ("networking.k8s.io", "ingressclasses"): Rules(
        passes=Passes(2, 1),
        generation=True,
        default=network_defaults.default_ingress_class,
        validate=network.validate_ingress_class,
        validate_update=network.validate_ingress_class_update,
    ),
    ("networking.k8s.io", "networkpolicies"): Rules(
        warnings=network.network_policy_warnings,
        passes=Passes(2, 1),
        looks=2,
        generation=True,
        default=network_defaults.default_network_policy,
        validate=network.validate_network_policy,
    ),
    ("networking.k8s.io", "ipaddresses"): Rules(
        passes=Passes(2, 1),
        name=ip_name,
        validate=network.validate_ip_address,
        validate_update=network.validate_ip_address_update,
    ),
    ("networking.k8s.io", "servicecidrs"): Rules(
        passes=Passes(2, 1),
        has_status=True,
        status_keeps=WHOLE_METADATA,
        validate=network.validate_service_cidr,
        validate_update=network.validate_service_cidr_update,
    ),
    ("storage.k8s.io", "storageclasses"): Rules(
        passes=Passes(2, 1),
        default=storage_defaults.default_storage_class,
        validate=storage_classes.validate_storage_class,
        validate_update=storage_classes.validate_storage_class_update,
        warnings=storage_classes.storage_class_warnings,
    ),
    ("storage.k8s.io", "csinodes"): Rules(
        passes=Passes(1, 1),
        allow_unconditional_update=False,
        validate=storage_classes.validate_csi_node,
        validate_update=storage_classes.validate_csi_node_update,
    ),
    ("storage.k8s.io", "csidrivers"): Rules(
        allow_unconditional_update=False,
        default=storage_defaults.default_csi_driver,
        validate=storage_classes.validate_csi_driver,
        validate_update=storage_classes.validate_csi_driver_update,
        warnings=storage_classes.csi_driver_warnings,
    ),
    ("storage.k8s.io", "volumeattachments"): Rules(
        passes=Passes(1, 2),
        looks=2,
        has_status=True,
        status_keeps=WHOLE_METADATA,
        new_status={"attached": False},
        allow_unconditional_update=False,
        validate=storage_classes.validate_attachment,
        validate_update=storage_classes.validate_attachment_update,
        validate_status=storage_classes.validate_attachment_status,
    ),
    ("storage.k8s.io", "csistoragecapacities"): Rules(
        warnings=storage_classes.capacity_warnings,
        passes=Passes(2, 1),
        allow_unconditional_update=False,
        validate=storage_classes.validate_capacity,
        validate_update=storage_classes.validate_capacity_update,
    ),
    ("storage.k8s.io", "volumeattributesclasses"): Rules(
        passes=Passes(2, 1),
        validate=storage_classes.validate_attributes_class,
        validate_update=storage_classes.validate_attributes_class_update,
    ),
    ("rbac.authorization.k8s.io", "roles"): Rules(
        passes=Passes(2, 2),
        looks=2,
        name=path_segment,
        allow_create_on_update=True,
        default=extension_defaults.default_role,
        validate=rbac.validate_role,
    ),
    ("rbac.authorization.k8s.io", "clusterroles"): Rules(
        passes=Passes(2, 2),
        looks=2,
        name=path_segment,
        allow_create_on_update=True,
        default=extension_defaults.default_role,
        validate=rbac.validate_cluster_role,
    ),
    ("rbac.authorization.k8s.io", "rolebindings"): Rules(
        passes=Passes(2, 2),
        looks=2,
        name=path_segment,
        allow_create_on_update=True,
        default=extension_defaults.default_binding,
        validate=rbac.validate_role_binding,
        validate_update=rbac.validate_role_binding_update,
    ),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): Rules(
        passes=Passes(2, 2),
        looks=2,
        name=path_segment,
        allow_create_on_update=True,
        default=extension_defaults.default_binding,
        validate=rbac.validate_cluster_role_binding,
        validate_update=rbac.validate_cluster_role_binding_update,
    ),
    ("autoscaling", "horizontalpodautoscalers"): Rules(
        has_status=True,
        new_status={"desiredReplicas": 0, "currentMetrics": None},
        default=extension_defaults.default_autoscaler,
        validate=autoscaling.validate_autoscaler,
        validate_status=autoscaling.validate_autoscaler_status,
    ),
    ("policy", "poddisruptionbudgets"): Rules(
        name=path_segment,
        passes=Passes(1, standard=False),
        generation=True,
        has_status=True,
        new_status={"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
        allow_unconditional_update=False,
        validate=autoscaling.validate_budget,
        validate_status=autoscaling.validate_budget_status,
    ),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): _WEBHOOKS,
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): _WEBHOOKS,
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): Rules(
        passes=Passes(1, 1, standard=False),
        generation=True,
        has_status=True,
        status_keeps=WHOLE_METADATA,
        new_status={},
        allow_unconditional_update=False,
        default=extension_defaults.default_admission_policy,
        validate=extensions.validate_admission_policy,
    ),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): Rules(
        passes=Passes(1, 1, standard=False),
        generation=True,
        allow_unconditional_update=False,
        default=extension_defaults.default_admission_binding,
        validate=extensions.validate_policy_binding,
    ),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"): Rules(
        passes=Passes(1, 1, standard=False),
        generation=True,
        allow_unconditional_update=False,
        default=extension_defaults.default_admission_policy,
        validate=extensions.validate_mutating_policy,
    ),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"): Rules(
        passes=Passes(1, 1, standard=False),
        generation=True,
        allow_unconditional_update=False,
        default=extension_defaults.default_admission_binding,
        validate=extensions.validate_mutating_binding,
    ),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"): Rules(
        passes=Passes(1, 1),
        generation=True,
        has_status=True,
        status_keeps=WHOLE_METADATA,
        new_status={},
        default=extension_defaults.default_flow_schema,
        validate=flowcontrol.validate_flow_schema,
        validate_status=flowcontrol.validate_status,
    ),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"): Rules(
        passes=Passes(1, 1),
        generation=True,
        has_status=True,
        status_keeps=WHOLE_METADATA,
        new_status={},
        default=extension_defaults.default_priority_level,
        validate=flowcontrol.validate_priority_level,
        validate_status=flowcontrol.validate_status,
    ),
    ("resource.k8s.io", "deviceclasses"): Rules(generation=True, validate=devices.validate_class),
    ("resource.k8s.io", "resourceslices"): Rules(
        generation=True,
        default=extension_defaults.default_resource_slice,
        validate=resource_slices.validate_slice,
        validate_update=resource_slices.validate_slice_update,
        fields={field: _spec_text(field) for field in ("spec.nodeName", "spec.driver")},
    ),
    ("resource.k8s.io", "resourceclaims"): Rules(
        has_status=True,
        status_keeps=WHOLE_METADATA,
        new_status={},
        default=extension_defaults.default_resource_claim,
        validate=devices.validate_claim,
        validate_update=devices.validate_claim_update,
        validate_status=claim_status.validate_claim_status,
    ),
    ("resource.k8s.io", "resourceclaimtemplates"): Rules(
        default=extension_defaults.default_resource_claim_template,
        validate=devices.validate_template,
        validate_update=devices.validate_template_update,
    ),
    ("batch", "cronjobs"): Rules(
        generation=True,
        has_status=True,
        new_status={},
        default=workload_defaults.default_cron_job,
        validate=batch.validate_cron_job,
        validate_update=batch.validate_cron_job_update,
        warnings=workload_warnings.cron_job_warnings,
    ),
}
_CLASSES: dict[tuple[str, str], type[Strategy]] = {
    ("", "pods"): PodStrategy,
    ("", "services"): ServiceStrategy,
    ("", "namespaces"): NamespaceStrategy,
    ("", "events"): EventStrategy,
    ("apps", "daemonsets"): DaemonSetStrategy,
    ("", "persistentvolumes"): VolumeStrategy,
    ("", "persistentvolumeclaims"): ClaimStrategy,
    ("apiextensions.k8s.io", "customresourcedefinitions"): CustomResourceDefinitionStrategy,
    ("apiregistration.k8s.io", "apiservices"): APIServiceStrategy,
    ("batch", "jobs"): JobStrategy,
    ("certificates.k8s.io", "certificatesigningrequests"): CertificateRequestStrategy,
}


def build(resource: "Resource") -> Strategy:
    """A new strategy for the resource; what is not built in gets that of custom resources."""
    if lookup(*resource.key()) is None:
        return CustomResourceStrategy(resource)
    key = (resource.group, resource.plural)
    kind = _CLASSES.get(key, Strategy)
    return kind(resource, _RULES.get(key, PLAIN if kind is Strategy else None))
