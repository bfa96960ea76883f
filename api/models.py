"""The typed objects of Kubernetes 1.36 (msgspec Structs of lightkube-models), by group and version.

    from api.models import apps_v1, core_v1, meta_v1

Fields carry the API's own names; absent fields are None and are left out of the JSON; times are aware datetimes.
Fields that the models do not know are dropped when decoding, so a typed object is never written back over an
object made by somebody else: write patches.
"""

import sys
from importlib.util import find_spec
from types import ModuleType


def _bare_package() -> None:
    """Stand in for lightkube's own package while its models are imported.

    Its __init__ imports an HTTP client that nothing here uses: 8 MiB and 50 ms in every process. Taken away again
    below, so that whoever imports lightkube itself gets the real one (with these very models).
    """
    spec = find_spec("lightkube")
    if spec is not None and "lightkube" not in sys.modules:
        package = ModuleType("lightkube")
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules["lightkube"] = package


_bare_package()

from lightkube.models import (  # noqa: E402
    admissionregistration_v1,
    apiextensions_v1,
    apiregistration_v1,
    apps_v1,
    authentication_v1,
    authorization_v1,
    autoscaling_v1,
    autoscaling_v2,
    batch_v1,
    certificates_v1,
    coordination_v1,
    core_v1,
    discovery_v1,
    events_v1,
    flowcontrol_v1,
    meta_v1,
    networking_v1,
    node_v1,
    policy_v1,
    rbac_v1,
    scheduling_v1,
    storage_v1,
)

if not hasattr(sys.modules["lightkube"], "__file__"):
    del sys.modules["lightkube"]

__all__ = [
    "admissionregistration_v1",
    "apiextensions_v1",
    "apiregistration_v1",
    "apps_v1",
    "authentication_v1",
    "authorization_v1",
    "autoscaling_v1",
    "autoscaling_v2",
    "batch_v1",
    "certificates_v1",
    "coordination_v1",
    "core_v1",
    "discovery_v1",
    "events_v1",
    "flowcontrol_v1",
    "meta_v1",
    "networking_v1",
    "node_v1",
    "policy_v1",
    "rbac_v1",
    "scheduling_v1",
    "storage_v1",
]
