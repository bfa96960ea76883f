"""The last decisions in words: what a claim was made for, what a pool was considered for, what pods lack. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from machinery.decisions import facts, table
from nodepool_autoscaler import names
from nodepool_autoscaler.cluster import Cluster
from nodepool_autoscaler.disruption.memory import Memory
from nodepool_autoscaler.model import NODES, Amounts, Offering, PlannedClaim, Pool, World
from nodepool_autoscaler.provisioner import Made, Provisioner
from nodepool_autoscaler.refusals import listed, listed_amounts
from nodepool_autoscaler.shapes import requirements_of, usable
from proto.explain.v1 import explain_pb2 as pb

MOST_ROWS = 50


class Explainer:
    """Over what the provisioner and disruption remember."""

    def __init__(self, cluster: Cluster, provisioner: Provisioner, memory: Memory) -> None:
        self._cluster = cluster
        self._provisioner = provisioner
        self._memory = memory

    def nodeclaim(self, namespace: str, name: str) -> pb.Decision | None:
        """Which pods it was made for, which offerings were looked at, why some were refused."""
        claim = next((each for each in self._cluster.all_claims() if each.name == name), None)
        made = self._provisioner.made.get(name)
        if claim is None and made is None:
            return None
        told: dict[str, object] = {}
        if claim is not None:
            labels = claim.metadata.labels or {}
            launched = (names.INSTANCE_TYPE, names.CAPACITY_TYPE, names.ZONE)
            ready = claim.condition(names.READY)
            lacking = [
                f"{each.type}: {each.message or each.reason}"
                for each in claim.status.conditions
                if each.status != "True"
            ]
            told |= {
                "pool": claim.pool,
                "launched as": " ".join(labels[key] for key in launched if key in labels)
                if claim.status.providerID
                else "",
                "machine": claim.status.providerID,
                "node": claim.status.nodeName,
                "ready": ready.status if ready is not None else "Unknown",
                "not yet": "; ".join(each for each in lacking if not each.startswith(names.READY)),
                "leaving": "yes" if claim.metadata.deletionTimestamp is not None else "",
            }
        if made is None:
            headline = f"NodeClaim {name} was not made by this process, or long ago."
            decision = pb.Decision(headline=headline, facts=facts(told))
        else:
            decision = self._made(name, made, told)
        stays = self._memory.node(name)
        if stays is not None:
            decision.facts.append(pb.Fact(what="disruption", value=stays.headline))
            decision.tables.extend(stays.tables)
        return decision

    def _made(self, name: str, made: Made, told: dict[str, object]) -> pb.Decision:
        planned = made.planned
        told |= {
            "wanted for": f"{len(planned.pods)} pods, with daemons {listed(planned.requests)}",
            "cheapest": f"{planned.offerings[0]}, ${planned.price:.4f} per hour",
            "flexible": f"{len(planned.instance_types)} instance types, {len(planned.offerings)} offerings",
        }
        headline = f"NodeClaim {name} was made for {len(planned.pods)} pods of which none fits elsewhere."
        decision = pb.Decision(headline=headline, time=made.at, facts=facts(told))
        pods = [[each.key, listed({**each.requests, "pods": 1})] for each in planned.pods[:MOST_ROWS]]
        decision.tables.append(table("Pods:", ("POD", "REQUESTS"), pods))
        rows = offering_rows(planned.pool, made.considered, planned)
        decision.tables.append(table("Offerings:", ("TYPE", "ZONE", "CAPACITY", "$/HOUR", "VERDICT"), rows))
        return decision

    def nodepool(self, namespace: str, name: str) -> pb.Decision | None:
        """Its limits, its nodes and its part in the last decision."""
        last = self._provisioner.last
        world = self._cluster.world()
        pool = world.pool(name)
        if pool is None:
            return None
        claims = [each for each in last.outcome.claims if each.pool.name == name]
        refused = {uid: each[name] for uid, each in last.outcome.refusals.items() if name in each}
        if pool.not_ready:
            headline = f"NodePool {name} launches nothing: {pool.not_ready}."
        elif pool.deleting:
            headline = f"NodePool {name} is being deleted."
        elif name in last.failures:
            headline = f"NodePool {name} failed to launch: {last.failures[name]}."
        elif claims:
            headline = (
                f"NodePool {name} launched {len(claims)} claims at ${sum(each.price for each in claims):.4f} per hour."
            )
        elif refused:
            headline = f"NodePool {name} launched nothing: {len(refused)} pods do not fit it."
        elif last.waiting:
            headline = f"NodePool {name} launched nothing: pods that wait have room, or another pool's nodes."
        else:
            headline = f"NodePool {name} launched nothing: no pod waits for room."
        decision = pb.Decision(headline=headline, time=last.at, facts=facts(self._pool_facts(pool, world)))
        if claims:
            rows = [
                [len(each.pods), str(each.offerings[0]), f"{each.price:.4f}", len(each.offerings)] for each in claims
            ]
            decision.tables.append(table("Claims of the last pass:", ("PODS", "CHEAPEST", "$/HOUR", "OFFERINGS"), rows))
        if refused:
            keys = {info.uid: info.key for info in last.waiting}
            lines = [[keys.get(uid, uid), why] for uid, why in list(refused.items())[:MOST_ROWS]]
            decision.tables.append(table("Pods that do not fit:", ("POD", "WHY"), lines))
        made = [(claim, each) for claim, each in self._provisioner.made.items() if each.planned.pool.name == name]
        if made:
            late: list[list[object]] = [
                [each.at, claim, len(each.planned.pods), str(each.planned.offerings[0]), f"{each.planned.price:.4f}"]
                for claim, each in reversed(made[-10:])
            ]
            decision.tables.append(table("Claims made of late:", ("TIME", "CLAIM", "PODS", "CHEAPEST", "$/HOUR"), late))
        for extra in (self._memory.budgets_of(name), self._memory.commands_of(name)):
            if extra is not None:
                decision.tables.append(extra)
        return decision

    def _pool_facts(self, pool: Pool, world: World) -> dict[str, object]:
        nodes = [each for each in world.nodes if each.pool == pool.name]
        used = {name: sum(1 if name == NODES else each.capacity.get(name, 0) for each in nodes) for name in pool.limits}
        offered = usable(pool, world.offerings.get(pool.node_class, ()))
        return {
            "halted": self._cluster.catalog.trouble,
            "weight": pool.weight or "",
            "nodes": f"{len(nodes)}, ${sum(each.price for each in nodes):.4f} per hour",
            "limits": limits_told(used, pool.limits),
            "requirements": "; ".join(str(each) for each in requirements_of(pool).values()),
            "offerings": f"{len(offered)} of {len(world.offerings.get(pool.node_class, ()))}",
        }

    def scale_up(self, namespace: str, name: str) -> pb.Decision | None:
        """What was done for a pod that waits."""
        last = self._provisioner.last
        info = next((each for each in last.waiting if (each.namespace, each.name) == (namespace, name)), None)
        if info is None:
            return None
        for claim, made in reversed(self._provisioner.made.items()):
            if any(each.uid == info.uid for each in made.planned.pods):
                headline = f"Pod {info.key} shall run on nodeclaim {claim}, launched as {made.planned.offerings[0]}."
                return pb.Decision(headline=headline, time=made.at)
        place = last.outcome.placed.get(info.uid)
        if place is not None:
            return pb.Decision(headline=f"Pod {info.key} has room on {place}.", time=last.at)
        why = last.outcome.errors.get(info.uid, "it is not decided yet")
        decision = pb.Decision(headline=f"Pod {info.key} gets no node: {why}.", time=last.at)
        rows = [[pool, reason] for pool, reason in last.outcome.refusals.get(info.uid, {}).items()]
        if rows:
            decision.tables.append(table("", ("NODEPOOL", "WHY"), rows))
        return decision

    def node(self, namespace: str, name: str) -> pb.Decision | None:
        """Why a node stays or goes."""
        return self._memory.node(name)


def limits_told(used: Amounts, limits: Amounts) -> str:
    """`cpu 0 of 16, nodes 1 of 4`."""
    there, most = listed_amounts(used), listed_amounts(limits)
    return ", ".join(f"{name} {there[name]} of {most[name]}" for name in limits)


def offering_rows(pool: Pool, offerings: Sequence[Offering], planned: PlannedClaim) -> list[list[object]]:
    """Everything that was on offer, the cheapest first, with a verdict on each."""
    kept = {each.key for each in planned.offerings}
    allowed = {each.key for each in usable(pool, offerings)}
    demands = {each.key: each for each in planned.requirements}
    rows: list[list[object]] = []
    for each in sorted(offerings, key=lambda one: (one.price, *one.key)):
        short = [name for name, amount in planned.requests.items() if amount > each.allocatable.get(name, 0)]
        if each.key in kept:
            verdict = "cheapest" if each.key == planned.offerings[0].key else "would do"
        elif each.key not in allowed:
            verdict = "refused by the pool's requirements"
        elif short:
            verdict = f"not enough {', '.join(short)}"
        elif any(key in demands and not demands[key].allows(value) for key, value in each.labels.items()):
            verdict = "refused by what its pods demand"
        else:
            verdict = "above the pool's limits"
        rows.append([each.instance_type, each.zone, each.capacity_type, f"{each.price:.4f}", verdict])
    return rows[: 2 * MOST_ROWS]
