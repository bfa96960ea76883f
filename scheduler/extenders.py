"""HTTP scheduler extenders: other people's filters, priorities, preemption and binding, asked per pod.

Owns the conversation (upstream's extender/v1 JSON) and the judging of its answers; the configuration says whom to ask
for which pods. A call that fails fails the attempt, unless the extender is ignorable. Every call is
bounded by the extender's timeout, in real seconds. Called by the scheduler's loop, which waits meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import re
import ssl
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from api.models import core_v1
from scheduler.framework.interface import MAX_SCORE
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.preemption import Candidate

TIMEOUT: Final = 5.0
LARGEST_ANSWER: Final = 64 << 20
MAX_PRIORITY: Final = 10  # extenders score from 0 to 10


class ExtenderError(Exception):
    """The extender gave no answer, or not one that can be used."""


class TlsConfig(msgspec.Struct, forbid_unknown_fields=True):
    insecure: bool = False
    serverName: str = ""
    certFile: str = ""
    keyFile: str = ""
    caFile: str = ""
    certData: str = ""
    keyData: str = ""
    caData: str = ""


class ManagedResource(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    ignoredByScheduler: bool = False


class ExtenderConfig(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of `extenders` in a KubeSchedulerConfiguration."""

    urlPrefix: str
    filterVerb: str = ""
    preemptVerb: str = ""
    prioritizeVerb: str = ""
    weight: int = 0
    bindVerb: str = ""
    enableHTTPS: bool = False
    tlsConfig: TlsConfig | None = None
    httpTimeout: str = ""
    nodeCacheCapable: bool = False
    managedResources: list[ManagedResource] = []
    ignorable: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What extenders left of the nodes: points to add to each, and why the others were refused."""

    points: Mapping[str, float]
    refused: Mapping[str, tuple[str, bool]]  # reason, and whether removing pods could help


_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|us|µs|ns|s)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def seconds_of(text: str) -> float:
    """A duration as Go writes it: `1m30s`, `500ms`. Raises ValueError."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'time: invalid duration "{text}"')
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _get(answer: Any, name: str) -> Any:
    """A field, whatever its case: the contract is Go's, which writes capitals and reads anything."""
    if not isinstance(answer, dict):
        return None
    return next((value for key, value in answer.items() if key.lower() == name.lower()), None)


def _names(answer: Any) -> list[str] | None:
    listed = _get(answer, "NodeNames")
    if isinstance(listed, list):
        return [str(each) for each in listed]
    nodes = _get(answer, "Nodes")
    items = _get(nodes, "items") if nodes is not None else None
    if isinstance(items, list):
        return [str(_get(_get(each, "metadata"), "name")) for each in items]
    return None


Post = Callable[[str, bytes], bytes]


class Extender:
    """One extender. `seconds` bounds a call; `post(url, body)` can be replaced by tests."""

    def __init__(self, config: ExtenderConfig, seconds: float = TIMEOUT, post: Post | None = None) -> None:
        self.config = config
        self.name = config.urlPrefix
        self._managed = frozenset(each.name for each in config.managedResources)
        self._seconds = seconds
        self._post = post or self._over_http
        self._tls = _context(config) if config.enableHTTPS or config.urlPrefix.startswith("https:") else None

    def is_interested(self, pod: PodInfo) -> bool:
        """Whether the pod asks for something that this extender manages; without such a list it wants all."""
        if not self._managed:
            return True
        containers = (*pod.spec.containers, *(pod.spec.initContainers or ()))
        return any(
            not self._managed.isdisjoint({**(each.resources.requests or {}), **(each.resources.limits or {})})
            for each in containers
            if each.resources is not None
        )

    async def filter(
        self, pod: PodInfo, nodes: Mapping[str, core_v1.Node]
    ) -> tuple[list[str], dict[str, tuple[str, bool]]]:
        """(names of nodes that pass, reason and resolvability of the others). Raises ExtenderError."""
        answer = await self._ask(self.config.filterVerb, self._about(pod, nodes))
        if error := _get(answer, "Error"):
            raise ExtenderError(str(error))
        left = _names(answer)
        if left is None:
            raise ExtenderError("the answer names no nodes")
        unknown = [name for name in left if name not in nodes]
        if unknown:
            raise ExtenderError(f"extender {self.name} claims a filtered node {unknown[0]} which is not in the input")
        refused = {
            str(name): (str(reason), resolvable)
            for field, resolvable in (("FailedNodes", True), ("FailedAndUnresolvableNodes", False))
            for name, reason in (_get(answer, field) or {}).items()
        }
        for name in nodes.keys() - set(left) - refused.keys():
            refused[name] = (f"node(s) were filtered out by extender {self.name}", True)
        return left, refused

    async def prioritize(self, pod: PodInfo, nodes: Mapping[str, core_v1.Node]) -> dict[str, float]:
        """Weighted points by node. Raises ExtenderError."""
        answer = await self._ask(self.config.prioritizeVerb, self._about(pod, nodes))
        if not isinstance(answer, list):
            raise ExtenderError("the answer is no list of priorities")
        scale = self.config.weight * MAX_SCORE / MAX_PRIORITY
        try:
            return {str(_get(each, "Host")): float(_get(each, "Score")) * scale for each in answer}
        except (TypeError, ValueError) as error:
            raise ExtenderError(f"the answer has a score that is no number: {error}") from error

    async def preempt(self, pod: PodInfo, candidates: Mapping[str, Candidate]) -> dict[str, Candidate]:
        """The candidates that the extender agrees to, with the victims it leaves. Raises ExtenderError."""
        meta = {
            name: {"Pods": [{"UID": each.uid} for each in found.victims], "NumPDBViolations": found.violations}
            for name, found in candidates.items()
        }
        asked: dict[str, Any] = {"Pod": msgspec.to_builtins(pod.pod)}
        if self.config.nodeCacheCapable:
            asked["NodeNameToMetaVictims"] = meta
        else:
            asked["NodeNameToVictims"] = {
                name: {**meta[name], "Pods": [msgspec.to_builtins(each.pod) for each in found.victims]}
                for name, found in candidates.items()
            }
        answer = _get(await self._ask(self.config.preemptVerb, asked), "NodeNameToMetaVictims")
        if not isinstance(answer, dict):
            raise ExtenderError("the answer names no victims")
        left: dict[str, Candidate] = {}
        for name, victims in answer.items():
            known = candidates.get(name)
            if known is None:
                raise ExtenderError(f"extender {self.name} names node {name}, which was not in the input")
            uids = {str(_get(each, "UID")) for each in _get(victims, "Pods") or ()}
            kept = tuple(each for each in known.victims if each.uid in uids)
            left[name] = Candidate(known.column, kept, int(_get(victims, "NumPDBViolations") or 0))
        return left

    async def bind(self, pod: PodInfo, node: str) -> None:
        """Raises ExtenderError."""
        asked = {"PodName": pod.name, "PodNamespace": pod.namespace, "PodUID": pod.uid, "Node": node}
        if error := _get(await self._ask(self.config.bindVerb, asked), "Error"):
            raise ExtenderError(str(error))

    def _about(self, pod: PodInfo, nodes: Mapping[str, core_v1.Node]) -> dict[str, Any]:
        asked: dict[str, Any] = {"Pod": msgspec.to_builtins(pod.pod), "Nodes": None, "NodeNames": None}
        if self.config.nodeCacheCapable:
            asked["NodeNames"] = list(nodes)
        else:
            asked["Nodes"] = {"metadata": {}, "items": [msgspec.to_builtins(each) for each in nodes.values()]}
        return asked

    async def _ask(self, verb: str, asked: Mapping[str, Any]) -> Any:
        url = f"{self.config.urlPrefix.rstrip('/')}/{verb}"
        body = msgspec.json.encode(asked)
        try:
            raw = await asyncio.wait_for(asyncio.to_thread(self._post, url, body), self._seconds)
            return json.loads(raw)
        except (OSError, http.client.HTTPException, ValueError, TimeoutError) as error:
            raise ExtenderError(f"{url}: {error or type(error).__name__}") from error

    def _over_http(self, url: str, body: bytes) -> bytes:
        parts = urlsplit(url)
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(host, parts.port, timeout=self._seconds, context=self._tls)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=self._seconds)
        try:
            connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
            with connection.getresponse() as answer:  # it holds the socket, too
                if answer.status != 200:
                    text = f"failed {parts.path} with extender at URL {url}, code {answer.status}"
                    raise http.client.HTTPException(text)
                return answer.read(LARGEST_ANSWER)
        finally:
            connection.close()


def _context(config: ExtenderConfig) -> ssl.SSLContext:
    """Raises OSError or ValueError when certificates cannot be read."""
    tls = config.tlsConfig or TlsConfig()
    authority = base64.b64decode(tls.caData).decode() if tls.caData else None
    made = ssl.create_default_context(cafile=tls.caFile or None, cadata=authority)
    if tls.insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if tls.certFile:
        made.load_cert_chain(tls.certFile, tls.keyFile or None)
    elif tls.certData:
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(base64.b64decode(tls.certData) + b"\n" + base64.b64decode(tls.keyData))
            pair.flush()
            made.load_cert_chain(pair.name)
    return made


class Extenders:
    """All extenders of a configuration, in order."""

    def __init__(self, extenders: Iterable[Extender] = ()) -> None:
        self._extenders = list(extenders)

    def for_pod(self, pod: PodInfo) -> Sequence[Extender]:
        return [each for each in self._extenders if each.is_interested(pod)]

    def binder(self, pod: PodInfo) -> Extender | None:
        """The extender that binds this pod, instead of our own binder."""
        return next((each for each in self._extenders if each.config.bindVerb and each.is_interested(pod)), None)

    def __len__(self) -> int:
        return len(self._extenders)

    async def judge(self, pod: PodInfo, nodes: Mapping[str, core_v1.Node], told: Callable[[str], None]) -> Verdict:
        """Filter one after the other, then add up priorities. Raises ExtenderError."""
        left = dict(nodes)
        refused: dict[str, tuple[str, bool]] = {}
        asked = self.for_pod(pod)
        for each in asked:
            if not each.config.filterVerb or not left:
                continue
            try:
                names, reasons = await each.filter(pod, left)
            except ExtenderError as error:
                if not each.config.ignorable:
                    raise
                told(f"ignored extender {each.name}: {error}")
                continue
            refused.update(reasons)
            left = {name: left[name] for name in names}
        points = dict.fromkeys(left, 0.0)
        scoring = [each for each in asked if each.config.prioritizeVerb and left]
        answers = await asyncio.gather(*(each.prioritize(pod, left) for each in scoring), return_exceptions=True)
        for each, answer in zip(scoring, answers, strict=True):
            if isinstance(answer, ExtenderError):
                told(f"ignored the priorities of extender {each.name}: {answer}")
            elif isinstance(answer, BaseException):
                raise answer
            else:
                for name, more in answer.items():
                    if name in points:
                        points[name] += more
        return Verdict(points, refused)

    async def preempt(
        self, pod: PodInfo, candidates: Mapping[str, Candidate], told: Callable[[str], None]
    ) -> Mapping[str, Candidate]:
        """The candidates that every extender agrees to. Raises ExtenderError."""
        left = candidates
        for each in self.for_pod(pod):
            if not each.config.preemptVerb or not left:
                continue
            try:
                left = await each.preempt(pod, left)
            except ExtenderError as error:
                if not each.config.ignorable:
                    raise
                told(f"ignored extender {each.name}: {error}")
        return left
