"""Jobs: the server generates the selector and the labels of the pods.

Looked up through `strategy_for`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apiserver.registry.defaults.workloads import default_job
from apiserver.registry.strategies.workload_warnings import job_warnings
from apiserver.registry.strategy import Rules, Strategy
from apiserver.registry.validation.batch import (
    CONTROLLER_UID,
    JOB_NAME,
    validate_job,
    validate_job_status,
    validate_job_update,
)
from apiserver.registry.validation.metadata import Passes

if TYPE_CHECKING:
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]


def _successful(obj: Obj) -> str:
    return str((obj.get("status") or {}).get("succeeded") or 0)


class JobStrategy(Strategy):
    """batch/v1 Job."""

    rules = Rules(
        generation=True,
        has_status=True,
        new_status={},
        default=default_job,
        passes=Passes(2, 1),
        looks=2,
        validate=validate_job,
        validate_update=validate_job_update,
        validate_status=validate_job_status,
        warnings=job_warnings,
        fields={"status.successful": _successful},
    )

    def prepare_create(self, ctx: RequestContext, obj: Obj) -> None:
        super().prepare_create(ctx, obj)
        spec, meta = obj["spec"], obj["metadata"]
        if spec.get("manualSelector"):
            return
        uid, name = meta.get("uid", ""), meta.get("name", "")
        template = spec["template"] = dict(spec.get("template") or {})
        template_meta = template["metadata"] = dict(template.get("metadata") or {})
        labels = {CONTROLLER_UID: uid, JOB_NAME: name, "controller-uid": uid, "job-name": name}
        # What the client has set stays; where it conflicts, validation tells.
        template_meta["labels"] = {**labels, **(template_meta.get("labels") or {})}
        selector = dict(spec.get("selector") or {})
        selector["matchLabels"] = {CONTROLLER_UID: uid, **(selector.get("matchLabels") or {})}
        spec["selector"] = selector
        if not meta.get("labels"):
            meta["labels"] = dict(template_meta["labels"])
