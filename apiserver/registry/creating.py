"""Creating objects of a resource, and what is POSTed to subresources.

Owns the order of things: canonicalize, default, admission, prepare, validate, reserve, write. Mixed into
`ResourceStore`.
"""

from __future__ import annotations

from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, Obj, Undo
from apiserver.registry.naming import generated_name, new_uid
from apiserver.registry.owners import drop_twins
from apiserver.registry.reading import storage_errors
from apiserver.registry.tracking import Tracker
from apiserver.registry.writer import ResourceWriter, take_back
from apiserver.storage.form import decode, encode
from apiserver.storage.interface import KeyValue
from machinery.errors import (
    AlreadyExists,
    InternalError,
    MethodNotAllowed,
    StatusError,
    Timeout,
)
from machinery.meta import rfc3339

NAME_ATTEMPTS = 8


class Creating(ResourceWriter):
    """POST."""

    async def create(
        self,
        ctx: RequestContext,
        namespace: str,
        body: Obj,
        *,
        name: str = "",
        subresource: str = "",
        tracker: Tracker | None = None,
    ) -> bytes:
        """Create an object, or POST to a subresource of `name`. `tracker`: of another version that is written."""
        if subresource:
            self.check_subresource(subresource)
            creator = self.creators.get(subresource)
            if creator is None:
                raise MethodNotAllowed()
            await self._admit_request(ctx, CREATE, namespace, name, body, subresource)
            raw: bytes = await creator(ctx, namespace, name, body)
            return raw
        meta = self._metadata(body, namespace)
        if meta.get("resourceVersion"):
            raise StatusError("resourceVersion should not be set on objects to be created", code=500, reason="")
        drop_twins(ctx, meta, admitted=False)
        generates = bool(meta.get("generateName")) and not meta.get("name")
        pristine = encode(body) if generates else b""
        for attempt in range(NAME_ATTEMPTS if generates else 1):
            try:
                fresh = decode(pristine) if attempt else body
                return await self._create_once(ctx, namespace, fresh, tracker or self.tracker)
            except AlreadyExists:
                if attempt == NAME_ATTEMPTS - 1 or not generates:
                    raise
        raise AssertionError("unreachable")

    async def _create_once(self, ctx: RequestContext, namespace: str, obj: Obj, tracker: Tracker | None) -> bytes:
        """Without a tracker the object's own managedFields are kept."""
        strategy, meta = self.strategy, obj["metadata"]
        managed, now = meta.pop("managedFields", None), rfc3339(self._clock.now())
        empty_list = tracker is not None and tracker.list_field != "" and obj.get(tracker.list_field) == []
        strategy.canonicalize(obj)
        strategy.default(obj)
        if tracker is not None:
            managed = tracker.created(ctx, obj, managed, now, empty_list=empty_list)
        await self._admit(ctx, CREATE, namespace, meta.get("name") or "", obj, None, "")
        meta = obj["metadata"]
        drop_twins(ctx, meta, admitted=True)
        if meta.get("generateName") and not meta.get("name"):
            meta["name"] = generated_name(meta["generateName"])
        meta["uid"] = new_uid()
        meta["creationTimestamp"] = now
        strategy.prepare_create(ctx, obj)
        self._raise_findings(meta.get("name") or "", strategy.validate_create(ctx, obj))
        name = meta["name"]
        finish = strategy.begin_create(ctx, obj)
        done, undo = False, list[Undo]()
        try:
            undo = await self._check(ctx, CREATE, namespace, name, obj, None, "")
            if managed:
                obj["metadata"]["managedFields"] = managed
            stored = self.form.encode(obj)
            if ctx.dry_run:
                if await self._current(namespace, name) is not None:
                    raise self._exists(name, None)
                ctx.warnings.extend(strategy.warnings(obj))
                return stored
            with storage_errors():
                result = await self._store.create(self._key(namespace, name), stored, self._ttl)
            if not result.ok:
                raise self._exists(name, result.current)
            done = True
        except Timeout:
            raise  # it may have been written after all; too much reserved is put right later, too little is not
        except StatusError:
            await take_back(undo)
            raise
        finally:
            if finish is not None:
                finish(done)
        ctx.warnings.extend(strategy.warnings(obj))
        return self.form.with_revision(stored, result.revision)

    def _exists(self, name: str, current: KeyValue | None) -> AlreadyExists:
        error = AlreadyExists.of(self.resource.plural, name, self.resource.group)
        try:
            base = self._from_store(current)
        except InternalError:
            return error
        if base is not None and decode(base.raw)["metadata"].get("deletionTimestamp"):
            return AlreadyExists(f"object is being deleted: {error.message}", details=error.details)
        return error
