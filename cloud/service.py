"""CloudService: what people see of the cloud and order from it, over `cloud.requests`.

Owns the translation between messages and the model. Asked by `./nanokube cloud`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cloud import cost
from cloud.engine import Engine
from cloud.model import Autoscaling, Fault, Group, Instance, SpotMarket, Taint, instance_type
from cloud.requests import NOTICE, Requests
from cloud.volumes_engine import VolumeEngine
from cloud.volumes_model import attach_limit
from cloud.volumes_service import VolumeCalls
from machinery import grpc as transport
from machinery import quantity
from machinery.errors import BadRequest, StatusError
from proto.cloud.v1 import cloud_pb2 as pb


class CloudService(VolumeCalls):
    """The service. `balancers` tells which load balancers there are; `volumes` is None in a cloud without disks."""

    def __init__(
        self,
        requests: Requests,
        engine: Engine,
        balancers: Callable[[], Iterable[pb.LoadBalancer]],
        volumes: VolumeEngine | None = None,
    ) -> None:
        super().__init__(volumes)
        self._requests = requests
        self._engine = engine
        self._balancers = balancers

    # ---- see ----

    async def ListTypes(self, request: pb.ListTypesRequest, context: Any) -> pb.ListTypesResponse:
        found = self._requests.core.state.types.values()
        return pb.ListTypesResponse(
            types=[
                pb.InstanceType(
                    name=each.name,
                    cpu=each.cpu,
                    memory=each.memory,
                    max_pods=each.maxPods,
                    price_per_hour=each.pricePerHour,
                    max_volumes=attach_limit(quantity.milli(each.cpu) / 1000),
                )
                for each in found
            ],
            volume_types=self.volume_types(),
        )

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Any) -> pb.ListGroupsResponse:
        groups = self._requests.core.state.groups.values()
        return pb.ListGroupsResponse(groups=[self._group(each) for each in groups])

    async def ListInstances(self, request: pb.ListInstancesRequest, context: Any) -> pb.ListInstancesResponse:
        now = self._engine.now()
        chosen = [
            each
            for each in self._requests.core.state.instances.values()
            if request.group in ("", each.group) and (request.gone or each.phase != "gone")
        ]
        return pb.ListInstancesResponse(instances=[self._instance(each, now) for each in chosen])

    async def ListLoadBalancers(
        self, request: pb.ListLoadBalancersRequest, context: Any
    ) -> pb.ListLoadBalancersResponse:
        return pb.ListLoadBalancersResponse(load_balancers=self._balancers())

    async def GetCost(self, request: pb.GetCostRequest, context: Any) -> pb.GetCostResponse:
        state, now = self._requests.core.state, self._engine.now()
        groups = [_bill(name, each) for name, each in cost.by_group(state, now).items()]
        return pb.GetCostResponse(groups=groups, total=_bill("", cost.total(state, now)), since=now - state.since)

    # ---- order ----

    async def CreateGroup(self, request: pb.CreateGroupRequest, context: Any) -> pb.Group:
        def create() -> Group:
            made, kind = _group_from(request.group), None
            if request.HasField("type"):
                wanted = request.type
                try:
                    kind = instance_type(wanted.cpu, wanted.memory, wanted.max_pods or 110, wanted.name)
                except ValueError as error:
                    raise BadRequest(f"instance type: {error}") from error
                kind.pricePerHour = wanted.price_per_hour or kind.pricePerHour
                made.type = kind.name
            self._requests.create_group(made, kind)
            return made

        return self._group(await self._change(context, create))

    async def UpdateGroup(self, request: pb.UpdateGroupRequest, context: Any) -> pb.Group:
        def given(field: str) -> Any:
            return getattr(request, field) if request.HasField(field) else None  # type: ignore[arg-type]

        def update() -> Group:
            group = self._requests.group(request.name)
            self._requests.set_autoscaling(group, _autoscaling_from(request.autoscaling))
            if request.HasField("interruptions"):
                self._requests.set_interruptions(group, request.interruptions, self._engine.now())
            self._requests.set_delays(group, given("boot_delay"), given("heal_after"))
            self._requests.resize(group, given("desired"), given("min"), given("max"))
            return group

        return self._group(await self._change(context, update))

    async def DeleteGroup(self, request: pb.DeleteGroupRequest, context: Any) -> pb.DeleteGroupResponse:
        await self._change(context, lambda: self._requests.delete_group(self._requests.group(request.name)))
        return pb.DeleteGroupResponse()

    async def DeleteInstance(self, request: pb.DeleteInstanceRequest, context: Any) -> pb.DeleteInstanceResponse:
        def delete() -> None:
            found = self._requests.instance(request.name)
            if found.order is not None:
                self._requests.core.dismiss(found, "deleted on request")
                return
            self._requests.delete(self._requests.group(found.group), [found])

        await self._change(context, delete)
        return pb.DeleteInstanceResponse()

    async def InjectFault(self, request: pb.InjectFaultRequest, context: Any) -> pb.Group:
        def inject() -> Group:
            group, wanted = self._requests.group(request.group), request.fault
            self._requests.fail(group, Fault(wanted.mode, wanted.count or -1, wanted.after))  # type: ignore[arg-type]
            return group

        return self._group(await self._change(context, inject))

    async def Interrupt(self, request: pb.InterruptRequest, context: Any) -> pb.InterruptResponse:
        now = self._engine.now()
        notice = request.notice if request.HasField("notice") else NOTICE

        def interrupt() -> float:
            return self._requests.interrupt(self._requests.instance(request.instance), now, notice)

        return pb.InterruptResponse(notice=await self._change(context, interrupt) - now)

    async def UpdateSpotMarket(self, request: pb.UpdateSpotMarketRequest, context: Any) -> pb.SpotMarket:
        def update() -> SpotMarket:
            return self._requests.set_market(
                self._engine.now(),
                request.interruptions if request.HasField("interruptions") else None,
                request.notice if request.HasField("notice") else None,
                request.seed if request.HasField("seed") else None,
            )

        now = await self._change(context, update)
        return pb.SpotMarket(interruptions=now.interruptions, notice=now.notice, seed=now.seed)

    async def _change(self, context: Any, act: Callable[[], Any]) -> Any:
        try:
            result = act()
        except StatusError as error:
            await transport.abort(context, error)
        self._engine.wake()
        return result

    def _group(self, group: Group) -> pb.Group:
        running = sum(each.phase == "running" for each in self._requests.core.state.of(group.name))
        return pb.Group(
            name=group.name,
            type=group.type,
            min=group.min,
            max=group.max,
            desired=group.desired,
            hollow=group.hollow,
            spot=group.spot,
            zones=group.zones,
            labels=group.labels,
            taints=[pb.Taint(key=each.key, value=each.value, effect=each.effect) for each in group.taints],
            boot_delay=group.bootDelay,
            heal_after=group.healAfter,
            fault=pb.Fault(mode=group.fault.mode, count=group.fault.count, after=group.fault.after),
            running=running,
            interruptions=group.interruptions,
            autoscaling=_autoscaling(group.autoscaling),
        )

    def _instance(self, instance: Instance, now: float) -> pb.Instance:
        group = self._requests.core.state.group_of(instance)
        problem = instance.problem
        found = pb.Instance(
            name=instance.name,
            group=instance.group,
            type=instance.type,
            zone=instance.zone,
            state=instance.phase,
            age=now - instance.created,
            price_per_hour=instance.price,
            cost=cost.of_instance(instance, now),
            spot=instance.spot or (group is not None and group.spot),
            hollow=instance.hollow,
            unhealthy=instance.sick is not None,
            error_code=problem.code if problem else "",
            message=problem.message if problem else instance.reason,
            provider_id=self._requests.provider_id(instance),
        )
        if instance.notice is not None and instance.phase == "running":
            found.interruption_in = max(0.0, instance.notice - now)
        return found


def _group_from(wanted: pb.Group) -> Group:
    return Group(
        name=wanted.name,
        type=wanted.type,
        min=wanted.min,
        max=wanted.max,
        desired=wanted.desired,
        prefix=wanted.name,
        hollow=wanted.hollow,
        spot=wanted.spot,
        zones=list(wanted.zones),
        labels=dict(wanted.labels),
        taints=[Taint(each.key, each.effect, each.value) for each in wanted.taints],
        bootDelay=wanted.boot_delay,
        healAfter=wanted.heal_after,
        interruptions=wanted.interruptions if wanted.HasField("interruptions") else None,
        autoscaling=_autoscaling_from(wanted.autoscaling),
    )


_AUTOSCALING = {
    "scale_down_utilization_threshold": "scaleDownUtilizationThreshold",
    "scale_down_unneeded_time": "scaleDownUnneededTime",
    "scale_down_unready_time": "scaleDownUnreadyTime",
    "max_node_provision_time": "maxNodeProvisionTime",
    "max_node_startup_time": "maxNodeStartupTime",
    "ignore_daemonsets_utilization": "ignoreDaemonSetsUtilization",
}


def _autoscaling(options: Autoscaling) -> pb.AutoscalingOptions:
    return pb.AutoscalingOptions(**{field: getattr(options, own) for field, own in _AUTOSCALING.items()})


def _autoscaling_from(options: pb.AutoscalingOptions) -> Autoscaling:
    found = {own: getattr(options, field) for field, own in _AUTOSCALING.items() if options.HasField(field)}  # type: ignore[arg-type]
    return Autoscaling(**found)


def _bill(name: str, bill: cost.Bill) -> pb.Bill:
    return pb.Bill(group=name, running=bill.running, hourly=bill.hourly, total=bill.total, hours=bill.hours)
