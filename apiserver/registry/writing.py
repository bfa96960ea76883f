"""Writing a resource: create, update, patch, delete, and the subresources that are writes of their parent.

Owns the order of things: canonicalize, default, admission, prepare, validate, reserve, write. Every write is a
compare-and-swap on the revision it was computed from; the base is the cached object, and whatever a possibly stale base
leads to (an error, a no-op) is confirmed on the store before it is answered. Longer than other modules because these
paths share their retry rules. Called by both doors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace as with_fields
from typing import TYPE_CHECKING, Any, NamedTuple

from apiserver.registry import deletion
from apiserver.registry.accounting import Account, as_it_was, as_sent, set_managed
from apiserver.registry.binding import bind
from apiserver.registry.context import DeleteOptions, DeleteResult, ListOptions, ListPage, RequestContext
from apiserver.registry.hooks import CONNECT, CREATE, DELETE, UPDATE, Obj, Plugin, Plugins, Undo, plugins_for
from apiserver.registry.listing import parse_revision
from apiserver.registry.naming import generated_name, new_uid
from apiserver.registry.patching import patcher
from apiserver.registry.reading import ResourceReader, storage_errors
from apiserver.registry.strategy import Strategy
from apiserver.registry.tracking import Tracker
from apiserver.storage.cache import ResourceCache
from apiserver.storage.feed import WatchCache
from apiserver.storage.form import BadObject, decode, encode
from apiserver.storage.interface import KeyValue, Store
from apiserver.storage.keys import suffix
from machinery.clock import Clock
from machinery.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    InternalError,
    MethodNotAllowed,
    NotFound,
    StatusError,
    Timeout,
    UnsupportedMediaType,
)
from machinery.field_errors import FieldError, invalid
from machinery.meta import rfc3339

if TYPE_CHECKING:
    from api.resources import Resource

ATTEMPTS = 64
"""Writers that lose so many races in a row are told of the conflict."""
NAME_ATTEMPTS = 8
DELETES_AT_ONCE = 16

ORPHANED_PODS = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)

Build = Callable[[Obj], Obj]
Creator = Callable[[RequestContext, str, str, Obj], "asyncio.Future[bytes] | Any"]


class Current(NamedTuple):
    """The object a write starts from. `fresh`: read from the store, not from the cache."""

    raw: bytes
    revision: int
    fresh: bool


class ResourceStore(ResourceReader):
    """One resource in one version: the door of REST and gRPC to storage."""

    def __init__(
        self,
        resource: Resource,
        strategy: Strategy,
        store: Store,
        feed: WatchCache,
        cache: ResourceCache,
        clock: Clock,
        admission: list[Plugin],
    ) -> None:
        super().__init__(resource, strategy, store, feed, cache)
        self._clock = clock
        self._admission = admission
        self._ttl = strategy.rules.lifetime / clock.scale  # the store counts real seconds
        self.tracker: Tracker | None = Tracker(resource, strategy, clock)
        """Field ownership; None: not kept."""
        self._plugins: tuple[int, Plugins] = (-1, Plugins((), ()))
        self._is_namespaces = resource.key() == ("", "v1", "namespaces")
        self._orphans = (resource.group, resource.plural) in deletion.ORPHAN_BY_DEFAULT
        self._answers_with_object = (resource.group, resource.plural) in deletion.ANSWERS_WITH_OBJECT
        self.creators: dict[str, Creator] = {}
        """`POST …/{name}/{subresource}`; the application registers what needs more than storage (token, eviction)."""
        if resource.key() == ("", "v1", "pods"):
            self.creators["binding"] = self._bind

    def _key(self, namespace: str, name: str) -> bytes:
        return self.cache.prefix + suffix(namespace, name).encode()

    # -- create -------------------------------------------------------------------------------------------------------

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
            await _take_back(undo)
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

    def _metadata(self, body: Obj, namespace: str) -> Obj:
        meta = body.get("metadata")
        if meta is None:
            meta = body["metadata"] = {}
        elif not isinstance(meta, dict):
            raise BadRequest("metadata must be an object")
        if namespace:
            given = meta.get("namespace")
            if given and given != namespace:
                raise BadRequest(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            meta["namespace"] = namespace
        return meta

    def _raise_findings(self, name: str, findings: list[FieldError]) -> None:
        if findings:
            raise invalid(self.resource.kind, name, self.resource.group, findings)

    async def connect(self, ctx: RequestContext, namespace: str, name: str, subresource: str, options: Obj) -> None:
        """Admission of a stream or a proxy; `options` are its options as an object. Raises what refuses it."""
        await self._admit_request(ctx, CONNECT, namespace, name, options, subresource)

    async def _admit_request(
        self, ctx: RequestContext, op: str, namespace: str, name: str, body: Obj, subresource: str
    ) -> None:
        """Admission of what is not stored itself."""
        await self._admit(ctx, op, namespace, name, body, None, subresource)
        await self._check(ctx, op, namespace, name, body, None, subresource)

    async def _admit(
        self, ctx: RequestContext, op: str, namespace: str, name: str, new: Obj | None, old: Obj | None, sub: str
    ) -> None:
        if op == UPDATE and sub == "binding":
            return  # it was admitted as it came
        for plugin in self._asked().admit:
            await plugin.admit(ctx, op, self.resource, namespace, name, new, old, sub)

    async def _check(
        self, ctx: RequestContext, op: str, namespace: str, name: str, new: Obj | None, old: Obj | None, sub: str
    ) -> list[Undo]:
        """Ask the plugins that judge; returns what has to be taken back if the write fails."""
        undo: list[Undo] = []
        if op == UPDATE and sub == "binding":
            return undo
        try:
            for plugin in self._asked().check:
                reserved = await plugin.check(ctx, op, self.resource, namespace, name, new, old, sub)
                if reserved is not None:
                    undo.append(reserved)
        except BaseException:
            await _take_back(undo)
            raise
        return undo

    def _asked(self) -> Plugins:
        count, plugins = self._plugins
        if count != len(self._admission):  # the application appends its plugins after the resources are built
            plugins = plugins_for(self.resource, self._admission)
            self._plugins = len(self._admission), plugins
        return plugins

    # -- update -------------------------------------------------------------------------------------------------------

    async def update(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        body: Obj,
        *,
        subresource: str = "",
        tracker: Tracker | None = None,
    ) -> tuple[bytes, bool]:
        """Replace an object or what a subresource shows of it. The flag tells that it was created."""
        self.check_subresource(subresource)
        strategy = self.strategy.for_subresource(subresource)
        meta = self._metadata(body, namespace)
        self._check_name(meta, name)
        uid, version = meta.get("uid"), meta.get("resourceVersion") or ""
        pristine, unused = encode(body), [body]

        def build(current: Obj) -> Obj:
            if uid and uid != current["metadata"].get("uid"):
                raise self._uid_conflict(namespace, name, uid, current["metadata"].get("uid", ""))
            if not version and not strategy.allow_unconditional_update:
                text = FieldError.invalid("metadata.resourceVersion", 0, "must be specified for an update")
                raise invalid(self.resource.plural, name, self.resource.group, [text])
            wanted = unused.pop() if unused else decode(pristine)
            return strategy.merge(ctx, current, wanted)

        try:
            account = self._account(ctx, subresource, tracker)
            raw = await self._rewrite(ctx, namespace, name, build, strategy, subresource, account)
        except NotFound as error:
            missing = (error.details or {}).get("kind") == self.resource.plural
            if subresource or not strategy.allow_create_on_update or not missing:
                raise
            fresh = decode(pristine)
            fresh["metadata"].pop("resourceVersion", None)
            fresh["metadata"].pop("uid", None)
            return await self.create(ctx, namespace, fresh, tracker=tracker), True
        return raw, False

    async def patch(
        self, ctx: RequestContext, namespace: str, name: str, patch_type: str, patch: bytes, *, subresource: str = ""
    ) -> bytes:
        """Change an object by a patch of the given content type."""
        self.check_subresource(subresource)
        strategy = self.strategy.for_subresource(subresource)
        apply = patcher(self.resource, subresource, patch_type, patch, ctx)

        def build(current: Obj) -> Obj:
            patched = apply(strategy.view(current))
            self._check_name(self._metadata(patched, namespace), name)
            return strategy.merge(ctx, current, patched)

        account = self._account(ctx, subresource, None)
        return await self._rewrite(ctx, namespace, name, build, strategy, subresource, account)

    async def apply(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        config: Obj,
        *,
        subresource: str = "",
        tracker: Tracker | None = None,
        inward: Callable[[Obj, Obj | None], Obj] = lambda obj, current: obj,
    ) -> tuple[bytes, bool]:
        """Server-side apply of a configuration. The flag tells that the object was created.

        `tracker` and `inward` are of another version that is written: its owners, and its way to the stored form.
        """
        self.check_subresource(subresource)
        strategy, owners = self.strategy.for_subresource(subresource), tracker or self.tracker
        if owners is None:
            raise UnsupportedMediaType("field ownership is not kept by this server", details={})
        owners.check_config(config, subresource)
        pristine = encode(config)

        def made(live: Obj) -> Obj:
            applied = owners.applied(ctx, live, decode(pristine), subresource)
            self._check_name(self._metadata(applied, namespace), name)
            return applied

        def build(current: Obj) -> Obj:
            if subresource == "scale":
                strategy.merge(ctx, current, decode(pristine))  # raises what a PUT would
                return made(current)
            return strategy.merge(ctx, current, inward(made(current), current))

        for _ in range(ATTEMPTS):
            try:
                raw = await self._rewrite(ctx, namespace, name, build, strategy, subresource, as_sent)
                return raw, False
            except NotFound as error:
                if subresource or (error.details or {}).get("kind") != self.resource.plural:
                    raise
            fresh = made({})
            if uid := fresh["metadata"].get("uid"):
                why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise Conflict.of(self.resource.plural, name, self.resource.group, why)
            fresh["metadata"].pop("resourceVersion", None)
            try:
                return await self._create_once(ctx, namespace, inward(fresh, None), None), True
            except AlreadyExists:
                continue  # somebody else created it meanwhile
        raise Conflict.of(self.resource.plural, name, self.resource.group)

    def _account(self, ctx: RequestContext, subresource: str, tracker: Tracker | None) -> Account:
        found = tracker or self.tracker
        if found is None:
            return as_it_was
        return lambda old, new, given: found.updated(ctx, old, new, given, subresource)

    async def mutate(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        change: Build,
        subresource: str = "",
        tracker: Tracker | None = None,
    ) -> bytes:
        """Change an object by a function, for rules inside the server; the function must not modify its argument.

        Only with a tracker does the request's manager come to own what changed.
        """

        def build(current: Obj) -> Obj:
            changed = change(current)
            return dict(changed, metadata=dict(changed["metadata"]))

        account = as_it_was if tracker is None else self._account(ctx, subresource, tracker)
        strategy = self.strategy.for_subresource(subresource)
        return await self._rewrite(ctx, namespace, name, build, strategy, subresource, account)

    def _check_name(self, meta: Obj, name: str) -> None:
        given = meta.get("name")
        if not given:
            raise BadRequest(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
        if given != name:
            raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({name})")

    def _uid_conflict(self, namespace: str, name: str, wanted: str, found: str) -> Conflict:
        why = (
            f"StorageError: invalid object, Code: 4, Key: {self._key(namespace, name).decode()}, resourceVersion: 0, "
            f"AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        )
        return Conflict.of(self.resource.plural, name, self.resource.group, why)

    async def _current(self, namespace: str, name: str, *, fresh: bool = False) -> Current | None:
        """The object to start from; what the cache does not have is looked up in the store."""
        if not fresh:
            entry = self.cache.get(namespace, name)
            if entry is not None:
                return Current(entry.raw, entry.revision, False)
        with storage_errors():
            found, _ = await self._store.get(self._key(namespace, name))
        return self._from_store(found)

    def _from_store(self, kv: KeyValue | None) -> Current | None:
        if kv is None:
            return None
        try:
            stored = self.form.adopt(kv.value)
        except BadObject as error:
            raise self.unreadable(kv.key.rpartition(b"/")[2].decode("utf-8", "replace"), error) from error
        return Current(self.form.with_revision(stored, kv.mod_revision), kv.mod_revision, True)

    async def _confirmed(self, namespace: str, name: str, base: Current) -> tuple[Current | None, bool]:
        """Is what was computed from a cached base still right? Otherwise the base to compute from again."""
        if base.fresh:
            return base, True
        latest = await self._current(namespace, name, fresh=True)
        return latest, latest is not None and latest.revision == base.revision

    async def _rewrite(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        build: Build,
        strategy: Strategy,
        subresource: str,
        account: Account,
    ) -> bytes:
        """Read, change, validate, compare-and-swap; again when somebody else was faster."""
        base = await self._current(namespace, name)
        for _ in range(ATTEMPTS):
            if base is None:
                raise self.not_found(name)
            old = decode(base.raw)
            try:
                new = await self._changed(ctx, namespace, name, build, strategy, subresource, base, old, account)
            except StatusError:
                base, confirmed = await self._confirmed(namespace, name, base)
                if confirmed:
                    raise
                continue
            if new == old:
                base, confirmed = await self._confirmed(namespace, name, base)
                if confirmed and base is not None:
                    return self._answer(strategy, new, base.raw)
                continue
            try:
                undo = await self._check(ctx, UPDATE, namespace, name, new, old, subresource)
            except StatusError:
                base, confirmed = await self._confirmed(namespace, name, base)
                if confirmed:
                    raise
                continue
            if ctx.dry_run:
                ctx.warnings.extend(strategy.warnings(new, old))
                return self._answer(strategy, new, self.form.with_revision(self.form.encode(new), base.revision))
            finish = strategy.begin_update(ctx, new, old)
            done, gone = False, deletion.finished(new, old)
            key, stored = self._key(namespace, name), self.form.encode(new)
            try:
                with storage_errors():
                    if gone:
                        result = await self._store.delete(key, base.revision)
                    else:
                        result = await self._store.replace(key, stored, base.revision, self._ttl)
                done = result.ok
            finally:
                if finish is not None:
                    finish(done)
            if done:
                if gone:
                    self.strategy.after_delete(new)
                ctx.warnings.extend(strategy.warnings(new, old))
                return self._answer(strategy, new, self.form.with_revision(stored, result.revision))
            await _take_back(undo)
            base = self._from_store(result.current)
        raise Conflict.of(self.resource.plural, name, self.resource.group)

    async def _changed(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        build: Build,
        strategy: Strategy,
        subresource: str,
        base: Current,
        old: Obj,
        account: Account,
    ) -> Obj:
        """The object as this request wants it, checked. It carries the base's resourceVersion, as `old` does."""
        new = build(decode(base.raw))  # a copy of its own: what is built may share parts with it
        meta = new["metadata"]
        version = meta.get("resourceVersion") or ""
        try:
            asked = parse_revision(version)
        except ValueError as error:
            raise StatusError(str(error), code=500, reason="") from error
        if asked and asked != base.revision:
            raise Conflict.of(self.resource.plural, name, self.resource.group)
        given = meta.pop("managedFields", None)
        strategy.canonicalize(new)
        strategy.default(new)
        managed = account(old, new, given)
        await self._admit(ctx, UPDATE, namespace, name, new, old, subresource)
        meta = new["metadata"]
        meta["resourceVersion"] = old["metadata"]["resourceVersion"]
        new["kind"], new["apiVersion"] = old["kind"], old["apiVersion"]
        strategy.prepare_update(ctx, new, old)
        set_managed(new, old, managed)
        self._raise_findings(name, strategy.validate_update(ctx, new, old))
        return new

    def _answer(self, strategy: Strategy, new: Obj, raw: bytes) -> bytes:
        if type(strategy).view is Strategy.view:
            return raw
        return encode(strategy.view(decode(raw)))

    async def _bind(self, ctx: RequestContext, namespace: str, name: str, body: Obj) -> bytes:
        """`POST pods/{name}/binding`: assign the pod to a node."""
        strategy = _Binding(self.strategy)
        uid = (body.get("metadata") or {}).get("uid")

        def build(current: Obj) -> Obj:
            if uid and uid != current["metadata"].get("uid"):
                raise self._uid_conflict(namespace, name, uid, current["metadata"].get("uid", ""))
            return bind(current, body, rfc3339(self._clock.now()))

        await self._rewrite(ctx, namespace, name, build, strategy, "binding", as_it_was)
        return encode({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})

    # -- delete -------------------------------------------------------------------------------------------------------

    async def delete(self, ctx: RequestContext, namespace: str, name: str, options: DeleteOptions) -> DeleteResult:
        """Remove an object, or mark it when something has to happen first."""
        if self._orphans and options.propagation_policy is None and options.orphan_dependents is None:
            self._warn_of_orphans(ctx)
        base = await self._current(namespace, name)
        for _ in range(ATTEMPTS):
            if base is None:
                raise self.not_found(name)
            obj = decode(base.raw)
            try:
                await self._admit(ctx, DELETE, namespace, name, None, obj, "")
                await self._check(ctx, DELETE, namespace, name, None, obj, "")
                deletion.check_preconditions(obj, options, self.resource.kind, self.resource.group)
                plan = self._plan_deletion(obj, options)
            except StatusError:
                base, confirmed = await self._confirmed(namespace, name, base)
                if confirmed:
                    raise
                continue
            if plan.update == obj:
                plan = plan._replace(update=None)
            if ctx.dry_run:
                return self._deleted(self._encoded(plan.update, base), obj, plan.remove)
            raw, revision = base.raw, base.revision
            if plan.update is not None:
                stored = self.form.encode(plan.update)
                with storage_errors():
                    result = await self._store.replace(self._key(namespace, name), stored, revision, self._ttl)
                if not result.ok:
                    base = self._from_store(result.current)
                    continue
                revision = result.revision
                raw = self.form.with_revision(stored, revision)
            elif not plan.remove:
                base, confirmed = await self._confirmed(namespace, name, base)
                if not confirmed:
                    continue
            if not plan.remove:
                return self._deleted(raw, obj, False)
            with storage_errors():
                result = await self._store.delete(self._key(namespace, name), revision)
            if result.ok:
                gone = plan.update or obj
                self.strategy.after_delete(gone)
                return self._deleted(self.form.restamp(raw, result.revision), gone, True)
            if result.current is None and plan.update is not None:
                return self._deleted(raw, obj, True)  # somebody else finished what we had begun
            base = self._from_store(result.current)
        raise Conflict.of(self.resource.plural, name, self.resource.group)

    def _plan_deletion(self, obj: Obj, options: DeleteOptions) -> deletion.Deletion:
        if self._is_namespaces:
            return deletion.plan_namespace_deletion(obj, options, self._clock)
        return deletion.plan_deletion(obj, options, self.strategy, self._clock, orphan_by_default=self._orphans)

    def _warn_of_orphans(self, ctx: RequestContext) -> None:
        if self.resource.plural == "jobs" and ORPHANED_PODS not in ctx.warnings:
            ctx.warnings.append(ORPHANED_PODS)

    def _encoded(self, update: Obj | None, base: Current) -> bytes:
        return base.raw if update is None else self.form.with_revision(self.form.encode(update), base.revision)

    def _deleted(self, raw: bytes, obj: Obj, gone: bool) -> DeleteResult:
        if not gone or self._answers_with_object:
            return DeleteResult(raw, gone)
        resource, meta = self.resource, obj["metadata"]
        details = {"name": meta["name"], "group": resource.group, "kind": resource.plural, "uid": meta.get("uid", "")}
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return DeleteResult(raw, True, {**status, "details": {key: value for key, value in details.items() if value}})

    async def delete_collection(
        self, ctx: RequestContext, namespace: str, list_options: ListOptions, options: DeleteOptions
    ) -> ListPage:
        """Delete what a list selects; answers with the list as it was."""
        page = await self.list(ctx, namespace, list_options)
        gate = asyncio.Semaphore(DELETES_AT_ONCE)
        targets = [decode(raw)["metadata"] for raw in page.items]

        async def one(meta: Obj) -> None:
            async with gate:
                try:
                    # The uid pins the object that was listed: one recreated meanwhile was not selected.
                    aim = with_fields(options, uid=options.uid or meta.get("uid", ""))
                    await self.delete(ctx, meta.get("namespace", ""), meta["name"], aim)
                except NotFound:
                    pass
                except Conflict:
                    if options.uid or options.resource_version:
                        raise

        try:
            async with asyncio.TaskGroup() as group:
                for meta in targets:
                    group.create_task(one(meta))
        except ExceptionGroup as errors:
            refused = errors.subgroup(StatusError)
            if refused is None:
                raise
            raise refused.exceptions[0] from None
        return page


class Bindings(ResourceStore):
    """`POST …/bindings`, the older spelling of a pod's binding: pods under another name."""

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
        pod = (body.get("metadata") or {}).get("name") or ""
        await self._admit_request(ctx, CREATE, namespace, pod, body, "binding")
        return await self._bind(ctx, namespace, pod, body)


async def _take_back(undo: list[Undo]) -> None:
    for each in reversed(undo):
        await each()


class _Binding(Strategy):
    """A binding is checked by `bind` alone; everything else of the pod stays as it is."""

    def __init__(self, parent: Strategy) -> None:
        super().__init__(parent.resource, parent.rules)

    def canonicalize(self, obj: Obj) -> None:
        pass

    def default(self, obj: Obj) -> None:
        pass

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        pass

    def validate_update(self, ctx: RequestContext, new: Obj, old: Obj) -> list[FieldError]:
        return []

    def warnings(self, obj: Obj, old: Obj | None = None) -> list[str]:
        return []
