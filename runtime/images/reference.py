"""Image names as users write them and as registries need them.

Pure. `busybox` means `docker.io/library/busybox:latest`; a first part with a dot, a colon or the name localhost is a
registry. Called by everything that handles image names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from runtime.faults import BadConfig

DEFAULT_REGISTRY = "docker.io"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_REGISTRY = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """A parsed image name. `tag` is empty when only a digest was given."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def tagged(self) -> str:
        """`registry/repository:tag`, or empty without a tag."""
        return f"{self.name}:{self.tag}" if self.tag else ""

    @property
    def wanted(self) -> str:
        """What to ask a registry for: the digest if there is one."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def is_digest(text: str) -> bool:
    """Whether `text` is a whole sha256 digest."""
    return _DIGEST.fullmatch(text) is not None


def shown_name(asked: str, tags: Sequence[str], fallback: str) -> str:
    """The full name under which a present image is told: the tag that was asked for, else any it has."""
    with suppress(BadConfig):
        wanted = normalize(asked).tagged
        if wanted in tags:
            return wanted
    return tags[0] if tags else fallback


def normalize(text: str) -> Reference:
    """Parse an image name with Docker's defaults. Raises BadConfig, worded as users know it."""
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise BadConfig(f'couldn\'t parse image name "{text}": invalid reference format')
    tag = ""
    head, slash, last = rest.rpartition("/")
    if ":" in last:
        last, _, tag = last.partition(":")
        if not _TAG.fullmatch(tag):
            raise BadConfig(f'couldn\'t parse image name "{text}": invalid reference format')
    path = head + slash + last
    first, slash, remainder = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, repository = first, remainder
    else:
        registry, repository = DEFAULT_REGISTRY, path
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and repository and "/" not in repository:
        repository = f"library/{repository}"
    if not _REGISTRY.fullmatch(registry) or not _REPOSITORY.fullmatch(repository):
        if repository != repository.lower():
            raise BadConfig(
                f'couldn\'t parse image name "{text}": invalid reference format: repository name must be lowercase'
            )
        raise BadConfig(f'couldn\'t parse image name "{text}": invalid reference format')
    if not tag and not digest:
        tag = "latest"
    return Reference(registry, repository, tag, digest)
