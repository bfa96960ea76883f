"""API services: what this server answers itself is available as soon as it is registered.

Looked up through `strategy_for`. All other conditions are the aggregator's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apiserver.aggregation.model import LOCAL, plan_condition
from apiserver.registry.defaults.extensions import default_api_service
from apiserver.registry.strategy import WHOLE_METADATA, Rules, Strategy
from apiserver.registry.validation.extensions import validate_api_service, validate_api_service_status
from apiserver.registry.validation.metadata import Passes
from apiserver.registry.validation.names import path_segment

if TYPE_CHECKING:
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]


class APIServiceStrategy(Strategy):
    """apiregistration.k8s.io/v1 APIService."""

    rules = Rules(
        name=path_segment,
        has_status=True,
        status_keeps=WHOLE_METADATA,
        allow_unconditional_update=False,
        default=default_api_service,
        passes=Passes(2, 1, standard=False),
        validate=validate_api_service,
        validate_status=validate_api_service_status,
    )

    def prepare_create(self, ctx: RequestContext, obj: Obj) -> None:
        super().prepare_create(ctx, obj)
        if not (obj.get("spec") or {}).get("service"):
            obj["status"] = plan_condition({}, LOCAL, obj["metadata"].get("creationTimestamp") or "")
