"""May an ended container start again? Pod and container restart policies. Pure; asked by `pod.machine`."""

from __future__ import annotations

from api.models import core_v1
from kubelet.records import ContainerRecord, ContainerState

ALWAYS, ON_FAILURE, NEVER = "Always", "OnFailure", "Never"


def policy_of(pod: core_v1.PodSpec, container: core_v1.Container, *, init: bool) -> str:
    """The policy in force for one container; an init container never restarts after success."""
    if container.restartPolicy:
        return container.restartPolicy
    policy = pod.restartPolicy or ALWAYS
    return ON_FAILURE if init and policy == ALWAYS else policy


def restarts(policy: str, container: core_v1.Container, record: ContainerRecord) -> bool:
    """Whether the container behind `record` is to be started again now that it is not running."""
    if record.running:
        return False
    if record.state is not ContainerState.EXITED:
        return True  # created but never ran, or lost by the runtime: the start did not happen
    for rule in container.restartPolicyRules or ():
        codes = rule.exitCodes
        if codes is None:
            continue
        listed = record.exit_code in (codes.values or ())
        if listed == (codes.operator == "In"):
            return rule.action == "Restart" or rule.action == "RestartAllContainers"
    if policy == ALWAYS:
        return True
    return policy == ON_FAILURE and record.exit_code != 0
