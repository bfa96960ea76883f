"""Which representation an answer takes.

Owns: reading Accept headers (with Kubernetes' `as`, `g`, `v` parameters) and choosing among what this server writes.
JSON is always possible, YAML and protobuf for whole objects; where JSON is accepted too, `json_too` says so, and who
renders may fall back to it (long lists and watches do: protobuf is slow here). Never renders anything. Called by the
REST door; results are cached by header text.
"""

from __future__ import annotations

from typing import NamedTuple

from machinery.caching import keep_short
from machinery.errors import NotAcceptable

JSON = "application/json"
YAML = "application/yaml"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"

META_GROUP = "meta.k8s.io"
TABLE = "Table"
PARTIAL = "PartialObjectMetadata"
PARTIAL_LIST = "PartialObjectMetadataList"

_AVAILABLE = f"{JSON}, {YAML}, {PROTOBUF}"


class Accepted(NamedTuple):
    """The chosen media type and, when asked for, the transformed kind."""

    media_type: str = JSON
    kind: str = ""  # Table, PartialObjectMetadata, PartialObjectMetadataList
    version: str = ""
    json_too: bool = True  # JSON is among what the client takes


PLAIN = Accepted()


_JSON_RANGES = (JSON, "*/*", "application/*")


class MediaRange(NamedTuple):
    media_type: str
    parameters: dict[str, str]


@keep_short(512)
def ranges(header: str) -> tuple[MediaRange, ...]:
    """The media ranges of an Accept header, best first (by q, then by order)."""
    found: list[tuple[float, int, MediaRange]] = []
    for position, part in enumerate(header.split(",")):
        media_type, *rest = (piece.strip() for piece in part.split(";"))
        parameters = dict(piece.partition("=")[::2] for piece in rest if piece)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 1.0
        if media_type and quality > 0:
            found.append((-quality, position, MediaRange(media_type.lower(), parameters)))
    return tuple(media for _, _, media in sorted(found, key=lambda item: item[:2]))


@keep_short(512)
def negotiate(header: str, *, transforms: tuple[str, ...] = (), yaml: bool = True) -> Accepted:
    """The first range this server can write. Raises NotAcceptable when there is none.

    `transforms`: the kinds this endpoint can turn its answer into.
    """
    if not header:
        return PLAIN
    found = ranges(header)
    json_too = any(media.media_type in _JSON_RANGES and "as" not in media.parameters for media in found)
    known_type = False
    for media in found:
        known_type = known_type or media.media_type in (*_JSON_RANGES, YAML, PROTOBUF)
        if media.media_type in _JSON_RANGES:
            chosen = JSON
        elif media.media_type == PROTOBUF or (media.media_type == YAML and yaml):
            chosen = media.media_type
        else:
            continue
        wanted = media.parameters.get("as", "")
        if not wanted and not media.parameters.keys() & {"g", "v"}:  # these ask for a kind, too: one without a name
            return PLAIN if chosen == JSON else Accepted(chosen, json_too=json_too)
        version = media.parameters.get("v", "")
        known = media.parameters.get("g") == META_GROUP and version in ("v1", "v1beta1") and wanted in transforms
        if known and not (chosen == PROTOBUF and wanted == TABLE):  # no Table is ever read from protobuf
            return Accepted(chosen, wanted, version, json_too or chosen == JSON)
    raise _no_such_form(watch=not yaml) if known_type else not_acceptable()


def _no_such_form(*, watch: bool) -> NotAcceptable:
    """What upstream's serializers say where its router had found the media type."""
    forms = f"{JSON};stream=watch, {PROTOBUF};stream=watch" if watch else _AVAILABLE
    return NotAcceptable(f"only the following media types are accepted: {forms}", details={})


def not_acceptable() -> NotAcceptable:
    """No media type of the client's is one of this server's."""
    return NotAcceptable(f"406: Not Acceptable\n\nAvailable representations: {_AVAILABLE}", details={})


def wants_aggregated_discovery(header: str) -> str:
    """The media type of aggregated discovery to answer with, or "" for the plain lists."""
    for media in ranges(header):
        if media.parameters.get("as") == "APIGroupDiscoveryList":
            if media.media_type == JSON and media.parameters.get("v") == "v2":
                return "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            continue
        if media.media_type in _JSON_RANGES:
            return ""
    return ""


def only_protobuf(header: str) -> bool:
    """True for clients that understand nothing else (answers that are no objects are JSON for all others)."""
    if PROTOBUF not in header:
        return False
    found = ranges(header)
    return found[0].media_type == PROTOBUF and not any(media.media_type in _JSON_RANGES for media in found)


def media_type_of(content_type: str) -> str:
    """A Content-Type without its parameters, lower case."""
    return content_type.partition(";")[0].strip().lower()
