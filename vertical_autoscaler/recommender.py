"""The recommender's loop: reads usage each minute, keeps the models, writes recommendations and conditions.

Owns the models of all autoscalers. The arithmetic is in `model` and `estimation`; checkpoints are kept by
`checkpoints`. Run by app.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

from api.models import core_v1
from client.client import Client, key_of
from client.informer import EventHandler
from machinery import log, quantity
from machinery.clock import Clock
from machinery.errors import NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey, parse_time
from vertical_autoscaler import conflicts
from vertical_autoscaler.estimation import LOW_CONFIDENCE
from vertical_autoscaler.model import Model, Timeline, Usage
from vertical_autoscaler.objects import VPAS, Vpa
from vertical_autoscaler.status import NO_PODS, Conditions
from vertical_autoscaler.world import World, specs_of

PERIOD: Final = 60.0
METRICS: Final = "/apis/metrics.k8s.io/v1beta1"
MAX_KILLS: Final = 10_000
CUT: Final = timedelta(seconds=1)
"""Times of objects are cut to seconds: what happened did so before the next one, not before the pod was seen."""
_log = log.get(__name__)


class Reader(Protocol):
    """What answers GETs of the API server."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]: ...


class Kill(NamedTuple):
    """A container that needed more memory than it got: `memory` is what it had."""

    pod: core_v1.Pod
    memory: float
    at: datetime


class Recommender:
    """One per process."""

    def __init__(self, client: Client, world: World, reader: Reader, clock: Clock) -> None:
        self._client = client
        self._world = world
        self._reader = reader
        self._clock = clock
        self.timeline = Timeline(clock)
        self.models: dict[ObjectKey, Model] = {}
        self._kills: dict[tuple[ObjectKey, str], Kill] = {}
        world.pods.add_handler(EventHandler(self._seen, lambda _, new: self._seen(new)))
        world.evictions.add_handler(EventHandler(self._evicted))

    async def turn(self) -> None:
        """Look at everything once. Raises StatusError when the API server cannot be asked."""
        await self._world.refresh()
        vpas = [vpa for vpa in self._world.all_vpas() if vpa.ours]
        known = {key_of(vpa) for vpa in vpas}
        self.models = {key: model for key, model in self.models.items() if key in known}
        for key in known:
            self.models.setdefault(key, Model())
        usages: dict[str, dict[str, list[Usage]]] = {}
        troubles: dict[str, str] = {}
        for namespace in sorted({key.namespace for key in known}):
            try:
                usages[namespace] = await self._usage(namespace)
            except StatusError as error:
                troubles[namespace] = error.message
                _log.warning("Got no usage", extra=kv(namespace=namespace, error=error.message))
        kills, self._kills = self._kills, {}
        shared = conflicts.find(vpas, self._world.hpas.lister.list())
        for vpa in vpas:
            key = key_of(vpa)
            await self._look(
                vpa, usages.get(key.namespace, {}), kills, shared.get(key, {}), troubles.get(key.namespace)
            )

    async def _look(
        self,
        vpa: Vpa,
        usages: Mapping[str, list[Usage]],
        kills: Mapping[tuple[ObjectKey, str], Kill],
        shared: Mapping[str, ObjectKey],
        trouble: str | None,
    ) -> None:
        key, model, now = key_of(vpa), self.models[key_of(vpa)], self.timeline.now()
        target = self._world.target(vpa)
        pods = self._world.matching(vpa)
        names: set[str] = set()
        for pod in pods:
            name = key_of(pod).name
            for usage in usages.get(name, ()):
                model.use(usage)
            names.update(each.name for each in specs_of(pod))
        for (place, container), (pod, memory, at) in kills.items():
            matches = target.selector is not None and target.selector.matches(
                pod.metadata.labels if pod.metadata else {}
            )
            if place.namespace == key.namespace and matches:
                model.ran_out(place.name, container, memory, self.timeline.seconds(at + CUT))
        if pods:
            model.forget((key_of(pod).name for pod in pods), now)
        found = model.recommend(vpa, names)
        conditions = Conditions(vpa, self._clock.now())
        if pods:
            conditions.drop("NoPodsMatched")
        else:
            conditions.set("NoPodsMatched", True, *NO_PODS)
        if target.selector is None:
            conditions.set("ConfigUnsupported", True, message=_unsupported(target.problem))
        elif shared:
            conditions.set("ConfigUnsupported", True, "HorizontalPodAutoscaler", conflicts.message(shared))
        else:
            conditions.drop("ConfigUnsupported")
        if found or vpa.recommended():
            conditions.set("RecommendationProvided", True)
        else:
            conditions.set("RecommendationProvided", False, *(("", "") if pods else NO_PODS))
        if trouble is not None and pods and not found:
            conditions.set("FetchingHistory", True, "MetricsUnavailable", trouble)
        else:
            conditions.drop("FetchingHistory")
        unsure = [each.name for each in found if model.aggregates[each.name].confidence() < LOW_CONFIDENCE]
        if unsure:
            conditions.set("LowConfidence", True, "ShortHistory", f"Less than 1 h of history: {', '.join(unsure)}")
        else:
            conditions.drop("LowConfidence")
        patch = conditions.patch(vpa, found)
        if patch:
            await self._write(key, patch)

    async def _write(self, key: ObjectKey, patch: dict[str, Any]) -> None:
        try:
            await self._client.patch(VPAS, key.name, {"status": patch}, key.namespace, subresource="status")
        except NotFound:
            return  # it went meanwhile
        except StatusError as error:
            _log.warning("Could not write a recommendation", extra=kv(vpa=key, error=error.message))

    async def _usage(self, namespace: str) -> dict[str, list[Usage]]:
        """By pod."""
        answer = await self._reader.get(f"{METRICS}/namespaces/{namespace}/pods")
        found: dict[str, list[Usage]] = {}
        for item in answer.get("items") or ():
            name = str((item.get("metadata") or {}).get("name"))
            pod = self._world.pods.lister.get(ObjectKey(namespace, name))
            try:
                at = self.timeline.seconds(parse_time(str(item.get("timestamp"))))
            except ValueError:
                continue
            if pod is None:
                continue
            for each in item.get("containers") or ():
                container, used = str(each.get("name")), each.get("usage") or {}
                request = _requested(pod, container, "cpu") / 1000
                cores, memory = _number(used.get("cpu")), _number(used.get("memory"))
                found.setdefault(name, []).append(Usage(name, container, cores, memory, request, at))
        return found

    def _seen(self, pod: core_v1.Pod) -> None:
        """Remember kills for lack of memory: a later state of the pod may no longer tell."""
        for each in (pod.status.containerStatuses if pod.status is not None else None) or ():
            for state in (each.state, each.lastState):
                ended = state.terminated if state is not None else None
                if ended is None or ended.reason != "OOMKilled" or ended.finishedAt is None:
                    continue
                if len(self._kills) < MAX_KILLS:
                    memory = _requested(pod, each.name, "memory")
                    self._kills[key_of(pod), each.name] = Kill(pod, memory, ended.finishedAt)

    def _evicted(self, event: core_v1.Event) -> None:
        """An eviction by a kubelet is as good as a kill, if it names the containers that used too much memory."""
        notes = (event.metadata.annotations if event.metadata is not None else None) or {}
        place = ObjectKey(event.involvedObject.namespace or "", event.involvedObject.name or "")
        pod, at = self._world.pods.lister.get(place), event.metadata.creationTimestamp if event.metadata else None
        if notes.get("starved_resource") != "memory" or pod is None or at is None:
            return
        names, usages = (notes.get(f"offending_containers{suffix}", "").split(",") for suffix in ("", "_usage"))
        for name, used in zip(names, usages, strict=False):
            memory = _number(used)
            if name and memory is not None and len(self._kills) < MAX_KILLS:
                self._kills[place, name] = Kill(pod, memory, at)


def _requested(pod: core_v1.Pod, container: str, resource: str) -> float:
    return float(next((each.requests.get(resource, 0) for each in specs_of(pod) if each.name == container), 0))


def _number(text: Any) -> float | None:
    if text is None:
        return None
    try:
        return float(quantity.parse(text))
    except ValueError:
        return None


def _unsupported(problem: str) -> str:
    topmost = problem.startswith(("The targetRef controller", "Unhandled targetRef"))
    return problem if topmost else f"Cannot read targetRef. Reason: {problem}"
