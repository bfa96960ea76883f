"""The claims of a StatefulSet while it is scaled, its policy changes, pods are lost and the set itself is deleted.

The garbage collector is played: it takes a claim whose owners are all gone. The documented promise: with Retain a claim
is never lost; with Delete it goes after its pod (whenScaled) or with the set (whenDeleted), and a pod that comes back
meanwhile never finds itself on a claim that is about to go.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from api.models import apps_v1, core_v1, meta_v1
from controller_manager.statefulset import identity
from controller_manager.statefulset.plan import plan_step, sort_out
from machinery.clock import VirtualClock
from tests.unit.controller_manager.builders import at
from tests.unit.controller_manager.test_statefulset_plan import pod, web

POLICIES = st.sampled_from(["Retain", "Delete"])
LONG_ENOUGH = 40


class Claims(RuleBasedStateMachine):
    """Controller passes, kubelets and the garbage collector, in any order."""

    @initialize(when_deleted=POLICIES, when_scaled=POLICIES, parallel=st.booleans())
    def begin(self, when_deleted: str, when_scaled: str, parallel: bool) -> None:
        self.replicas = 3
        self.policy = (when_deleted, when_scaled)
        self.management = "Parallel" if parallel else "OrderedReady"
        self.pods: dict[int, core_v1.Pod] = {}
        self.claims: dict[int, core_v1.PersistentVolumeClaim] = {}
        self.made = 0
        self.retained_for_good: set[str] = set()
        self.deleted = False

    def set(self) -> apps_v1.StatefulSet:
        retention = apps_v1.StatefulSetPersistentVolumeClaimRetentionPolicy(
            whenDeleted=self.policy[0], whenScaled=self.policy[1]
        )
        template = core_v1.PersistentVolumeClaim(
            metadata=meta_v1.ObjectMeta(name="data"), spec=core_v1.PersistentVolumeClaimSpec()
        )
        return web(
            self.replicas,
            podManagementPolicy=self.management,
            persistentVolumeClaimRetentionPolicy=retention,
            volumeClaimTemplates=[template],
        )

    @rule()
    def reconcile(self) -> None:
        """What StatefulSetController.reconcile does: claims' owners first, then the step."""
        if self.deleted:
            return
        set_ = self.set()
        step = plan_step(set_, list(self.pods.values()), "r0", VirtualClock(at(0)))
        members = sort_out(set_, list(self.pods.values()))
        condemned = dict(members.condemned)
        for ordinal, each in self.pods.items():
            claim = self.claims.get(ordinal)
            if claim is not None:
                owners = identity.plan_claim_owners(set_, claim, each, condemned=ordinal in condemned)
                if owners is not None:
                    claim.metadata.ownerReferences = [meta_v1.OwnerReference(**owner) for owner in owners]
        for creation in step.create:
            self.create(set_, creation.ordinal)
        for victim in [*step.delete, *step.recreate]:
            victim.metadata.deletionTimestamp = at(0)

    def create(self, set_: apps_v1.StatefulSet, ordinal: int) -> None:
        claim = self.claims.get(ordinal)
        if claim is not None and identity.is_condemned(set_, claim, ordinal):
            return
        if claim is None:
            (made,) = identity.claims_for(set_, ordinal)
            self.made += 1
            made.metadata.uid = f"claim-{self.made}"
            self.claims[ordinal] = made
        self.made += 1
        self.pods[ordinal] = pod(ordinal, "pending", "r0")
        self.pods[ordinal].metadata.uid = f"pod-{self.made}"

    @rule()
    def pods_become_ready(self) -> None:
        for ordinal, each in list(self.pods.items()):
            if each.metadata.deletionTimestamp is None:
                fresh = pod(ordinal, "ready", "r0")
                fresh.metadata.uid = each.metadata.uid
                self.pods[ordinal] = fresh

    @rule(which=st.integers(0, 5))
    def a_terminating_pod_goes(self, which: int) -> None:
        gone = [ordinal for ordinal, each in sorted(self.pods.items()) if each.metadata.deletionTimestamp]
        if gone:
            del self.pods[gone[which % len(gone)]]

    @rule(which=st.integers(0, 5))
    def a_pod_is_deleted_by_a_user(self, which: int) -> None:
        if self.pods:
            self.pods[sorted(self.pods)[which % len(self.pods)]].metadata.deletionTimestamp = at(0)

    @rule()
    def collect_garbage(self) -> None:
        """Claims whose owners are all gone go, when no pod uses them any more (they are protected)."""
        living = {each.metadata.uid for each in self.pods.values()} | ({"uid-web"} if not self.deleted else set())
        for ordinal, claim in list(self.claims.items()):
            owners = claim.metadata.ownerReferences or []
            if owners and not any(each.uid in living for each in owners):
                claim.metadata.deletionTimestamp = at(0)
            if claim.metadata.deletionTimestamp is not None and ordinal not in self.pods:
                assert (claim.metadata.uid or "") not in self.retained_for_good, "Retain keeps claims"
                del self.claims[ordinal]

    @rule(replicas=st.integers(0, 4))
    def scale(self, replicas: int) -> None:
        self.replicas = replicas

    @rule(when_deleted=POLICIES, when_scaled=POLICIES)
    def change_policy(self, when_deleted: str, when_scaled: str) -> None:
        """Between passes: a claim whose pod has just gone is the collector's already, as upstream."""
        self.collect_garbage()
        self.policy = (when_deleted, when_scaled)
        self.reconcile()

    @rule()
    def retain_for_good(self) -> None:
        """Once Retain has been carried out, and while it lasts, no claim is lost."""
        self.change_policy("Retain", "Retain")
        for _ in range(3):
            self.reconcile()
        for ordinal, each in self.claims.items():
            owned = any(owner.kind == "Pod" for owner in each.metadata.ownerReferences or ())
            if ordinal in self.pods and each.metadata.deletionTimestamp is None and not owned:
                self.retained_for_good.add(each.metadata.uid or "")

    @invariant()
    def nobody_starts_on_a_claim_that_goes(self) -> None:
        if not hasattr(self, "claims"):
            return
        if self.policy != ("Retain", "Retain"):
            self.retained_for_good.clear()
        for ordinal, each in self.pods.items():
            assert ordinal in self.claims, "a pod has its claim"
            if each.metadata.deletionTimestamp is None and ordinal < self.replicas:
                owners = self.claims[ordinal].metadata.ownerReferences or []
                strangers = [o for o in owners if o.kind == "Pod" and o.uid != each.metadata.uid]
                assert not strangers, "a claim never belongs to an earlier pod of that name"

    def teardown(self) -> None:
        if not hasattr(self, "claims"):
            return
        self.replicas, kept = 2, set(self.claims)
        self.settle()
        assert sorted(self.pods) == [0, 1]
        when_deleted, when_scaled = self.policy
        assert {0, 1} <= set(self.claims)
        self.scale(3)
        self.settle()
        self.scale(1)
        self.settle()
        left = set(self.claims)
        if when_scaled == "Delete":
            assert not left & {1, 2}, "claims of the pods that were scaled away go"
        else:
            assert {0, 1, 2} <= left, "or stay for when they come back"
        assert left <= kept | {0, 1, 2}
        self.deleted = True
        self.pods.clear()
        self.collect_garbage()
        if when_deleted == "Delete":
            assert 0 not in self.claims
        else:
            assert 0 in self.claims

    def settle(self) -> None:
        for _ in range(LONG_ENOUGH):
            self.reconcile()
            self.pods_become_ready()
            self.a_terminating_pod_goes(0)
            self.collect_garbage()


TestClaims = Claims.TestCase
TestClaims.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
