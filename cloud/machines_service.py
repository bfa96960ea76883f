"""MachineService: single machines and what may be launched, over `cloud.orders`.

Owns the translation between messages and the model. Asked by whoever provisions nodes one by one, and by
`./nanokube cloud`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloud.engine import Engine
from cloud.model import ON_DEMAND, SPOT, Fault, Instance, Outage, SingleOrder, Taint, provider_id
from cloud.orders import Offer, Orders, Wanted
from cloud.template import template_node
from machinery import grpc as transport
from machinery.errors import StatusError
from proto.cloud.v1 import machines_pb2 as pb


class MachineService:
    """The service. `disk`: bytes that machines share with the host."""

    def __init__(self, orders: Orders, engine: Engine, disk: int) -> None:
        self._orders = orders
        self._engine = engine
        self._disk = disk

    # ---- see ----

    async def ListOfferings(self, request: pb.ListOfferingsRequest, context: Any) -> pb.ListOfferingsResponse:
        offers = self._orders.offers(self._engine.now())
        return pb.ListOfferingsResponse(offerings=[self._offering(each, request.hollow) for each in offers])

    async def ListMachines(self, request: pb.ListMachinesRequest, context: Any) -> pb.ListMachinesResponse:
        return pb.ListMachinesResponse(machines=[self._machine(each) for each in self._orders.machines])

    async def ListOutages(self, request: pb.ListOutagesRequest, context: Any) -> pb.ListOutagesResponse:
        return self._outages()

    # ---- order ----

    async def LaunchMachine(self, request: pb.LaunchMachineRequest, context: Any) -> pb.LaunchMachineResponse:
        order = SingleOrder(
            token=request.token,
            labels=dict(request.labels),
            taints=[Taint(each.key, each.effect, each.value) for each in request.taints],
            tags=dict(request.tags),
            bootDelay=request.boot_delay,
        )
        wanted = [Wanted(each.instance_type, each.zone, each.capacity_type) for each in request.offerings]

        def launch() -> tuple[Instance | None, list[Wanted]]:
            return self._orders.launch(
                order, wanted, hollow=request.hollow, now=self._engine.now(), taken=self._engine.seen.keys()
            )

        made, refused = await self._change(context, launch)
        return pb.LaunchMachineResponse(
            machine=self._machine(made) if made is not None else None,
            refused=[
                pb.Offering(instance_type=each.type, zone=each.zone, capacity_type=each.capacity_type)
                for each in refused
            ],
        )

    async def TerminateMachine(self, request: pb.TerminateMachineRequest, context: Any) -> pb.TerminateMachineResponse:
        await self._change(context, lambda: self._orders.terminate(request.name))
        return pb.TerminateMachineResponse()

    async def SetOutage(self, request: pb.SetOutageRequest, context: Any) -> pb.ListOutagesResponse:
        now = self._engine.now()
        until = now + request.seconds if request.seconds > 0 else None
        outage = Outage(request.instance_type, request.zone, request.capacity_type, until)
        await self._change(context, lambda: self._orders.set_outage(outage, over=request.over, now=now))
        return self._outages()

    async def InjectMachineFault(
        self, request: pb.InjectMachineFaultRequest, context: Any
    ) -> pb.InjectMachineFaultResponse:
        fault = Fault(request.mode, request.count or -1, request.after)  # type: ignore[arg-type]
        await self._change(context, lambda: self._orders.fail(fault))
        return pb.InjectMachineFaultResponse()

    async def _change(self, context: Any, act: Callable[[], Any]) -> Any:
        try:
            result = act()
        except StatusError as error:
            await transport.abort(context, error)
        self._engine.wake()
        return result

    # ---- messages ----

    def _outages(self) -> pb.ListOutagesResponse:
        now = self._engine.now()
        return pb.ListOutagesResponse(
            outages=[
                pb.Outage(
                    instance_type=each.type,
                    zone=each.zone,
                    capacity_type=each.capacityType,
                    seconds=each.until - now if each.until is not None else None,
                )
                for each in self._orders.outages(now)
            ]
        )

    def _offering(self, offer: Offer, hollow: bool) -> pb.Offering:
        group = offer.as_group(hollow)
        node = template_node(group, offer.type, self._disk)
        labels = node["metadata"]["labels"]
        del labels["kubernetes.io/hostname"]
        return pb.Offering(
            instance_type=offer.type.name,
            zone=offer.zone,
            capacity_type=offer.capacity_type,
            price_per_hour=offer.price,
            available=offer.available,
            capacity=node["status"]["capacity"],
            allocatable=node["status"]["allocatable"],
            labels=labels,
        )

    def _machine(self, instance: Instance) -> pb.Machine:
        state, now = self._engine.core.state, self._engine.now()
        order, problem = instance.order, instance.problem
        made = pb.Machine(
            name=instance.name,
            provider_id=provider_id(state.cluster, instance.name),
            token=order.token if order is not None else "",
            offering=pb.Offering(
                instance_type=instance.type,
                zone=instance.zone,
                capacity_type=SPOT if instance.spot else ON_DEMAND,
                price_per_hour=instance.price,
            ),
            state=instance.phase,
            unhealthy=instance.sick is not None,
            error_code=problem.code if problem is not None else "",
            message=problem.message if problem is not None else instance.reason,
            hollow=instance.hollow,
            age=now - instance.created,
            tags=order.tags if order is not None else {},
        )
        if instance.notice is not None and instance.phase == "running":
            made.interruption_in = max(0.0, instance.notice - now)
        return made
