"""Makes a container's image present, by its pull policy. Events and reasons are upstream's.

Owns nothing but pulls under way: containers that want the same image at the same time share one. Back-off is the pod
machine's. Called by `pod.worker`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from api.models import core_v1
from kubelet.cri import Cri, CriError
from kubelet.pull_secrets import Credential, credentials_for
from proto.cri.v1 import cri_pb2 as cri

Secrets = Callable[[], Awaitable[list[Mapping[str, Any]]]]  # the data of a pod's pull secrets
Pulled = tuple[str, cri.Image | None, str]  # reference, image, why the registry was not asked
ALWAYS, IF_NOT_PRESENT, NEVER = "Always", "IfNotPresent", "Never"
_NAME = re.compile(
    r"^(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
    r"(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*(?::[\w][\w.-]{0,127})?(?:@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,})?$",
    re.ASCII,
)


class ImageFailure(Exception):
    """No image: `reason` is what the container waits with."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Tell(Protocol):
    """Records an event: type, reason, message."""

    def __call__(self, kind: str, reason: str, message: str) -> None: ...


def with_tag(image: str) -> str:
    """`busybox` means `busybox:latest`."""
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def policy_of(container: core_v1.Container) -> str:
    """The policy, with the API server's default where it is unset."""
    if container.imagePullPolicy:
        return container.imagePullPolicy
    return ALWAYS if with_tag(container.image or "").endswith(":latest") else IF_NOT_PRESENT


class Images:
    """One per kubelet."""

    def __init__(self, runtime: Cri, tasks: asyncio.TaskGroup) -> None:
        self._cri = runtime
        self._tasks = tasks
        self._pulls: dict[tuple[str, Credential | None], asyncio.Task[Pulled | CriError]] = {}
        self._users: dict[str, int | None] = {}

    async def ensure(self, container: core_v1.Container, tell: Tell, secrets: Secrets) -> str:
        """The reference of a present image; `secrets` are read only for a pull. Raises ImageFailure."""
        image = container.image or ""
        if not _NAME.match(image):
            why = f'couldn\'t parse image name "{image}": invalid reference format'
            message = f'Failed to apply default image tag "{image}": {why}'
            tell("Warning", "InspectFailed", message)
            tell("Warning", "Failed", "Error: InvalidImageName")
            raise ImageFailure("InvalidImageName", message)
        tagged, policy = with_tag(image), policy_of(container)
        if policy != ALWAYS:
            try:
                present = await self._cri.image_status(tagged)
            except CriError as error:
                message = f'Failed to inspect image "{image}": {error.message}'
                tell("Warning", "InspectFailed", message)
                tell("Warning", "Failed", "Error: ImageInspectError")
                raise ImageFailure("ImageInspectError", message) from error
            if present is not None:
                self._note(present)
                tell(
                    "Normal",
                    "Pulled",
                    f'Container image "{image}" already present on machine and can be accessed by the pod',
                )
                return present.id
            if policy == NEVER:
                message = f'Container image "{image}" is not present with pull policy of Never'
                tell("Warning", "ErrImageNeverPull", message)
                tell("Warning", "Failed", "Error: ErrImageNeverPull")
                raise ImageFailure("ErrImageNeverPull", message)
        return await self._pull(image, tagged, tell, credentials_for(image, await secrets()))

    async def _pull(self, image: str, tagged: str, tell: Tell, credentials: list[Credential]) -> str:
        tell("Normal", "Pulling", f'Pulling image "{image}"')
        began = time.monotonic()
        try:
            reference, found, note = await self._with_each(tagged, credentials)
        except CriError as error:
            tell("Warning", "Failed", f'Failed to pull image "{image}": {error.message}')
            tell("Warning", "Failed", "Error: ErrImagePull")
            raise ImageFailure("ErrImagePull", error.message) from error
        took = _took(time.monotonic() - began)
        if note:
            tell("Normal", "Pulled", f'Container image "{image}" already present on machine: {note}')
        else:
            size = f" Image size: {found.size} bytes." if found is not None else ""
            tell("Normal", "Pulled", f'Successfully pulled image "{image}" in {took} ({took} including waiting).{size}')
        return found.id if found is not None else reference

    async def _with_each(self, tagged: str, credentials: list[Credential]) -> Pulled:
        """Pull with the first credential that opens the registry, or with none where none applies. Raises CriError."""
        errors: list[CriError] = []
        for credential in credentials or (None,):
            try:
                return await self._shared(tagged, credential)
            except CriError as error:
                errors.append(error)
        texts = list(dict.fromkeys(error.message for error in errors))
        raise CriError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]", errors[-1].code)

    async def _shared(self, tagged: str, credential: Credential | None) -> Pulled:
        """Join the pull of this image that is under way, or begin one. Raises CriError."""
        key = (tagged, credential)
        task = self._pulls.get(key)
        if task is None:
            task = self._pulls[key] = self._tasks.create_task(self._do(tagged, credential))
        result = await asyncio.shield(task)  # a pod that goes away does not end the pull of the others
        if isinstance(result, CriError):
            raise CriError(result.message, result.code) from result
        return result

    async def _do(self, tagged: str, credential: Credential | None) -> Pulled | CriError:
        """Errors are results here: they belong to the pods that wait, not to the kubelet's task group."""
        try:
            reference = await self._cri.pull_image(tagged, _auth(credential))
            found, note = await self._cri.pulled_image(tagged)
        except CriError as error:
            return error
        finally:
            del self._pulls[tagged, credential]
        if found is not None:
            self._note(found)
        return reference, found, note

    def _note(self, image: cri.Image) -> None:
        user = image.uid.value if image.HasField("uid") else None
        self._users[image.id] = 0 if user is None and not image.username else user

    async def user(self, reference: str) -> int | None:
        """The numeric user an image runs as, None when it names one by name."""
        if reference not in self._users:
            try:
                found = await self._cri.image_status(reference)
            except CriError:
                return None
            if found is None:
                return None
            self._note(found)
            return self._users.get(found.id)
        return self._users[reference]


def _auth(credential: Credential | None) -> cri.AuthConfig | None:
    if credential is None:
        return None
    return cri.AuthConfig(
        username=credential.username,
        password=credential.password,
        server_address=credential.server,
        identity_token=credential.identity_token,
        registry_token=credential.registry_token,
    )


def _took(seconds: float) -> str:
    return f"{seconds:.3f}s" if seconds >= 1 else f"{round(seconds * 1000)}ms"
