"""Deleting objects of a resource, one or many.

Owns the steps of a deletion; what it means is planned by `deletion`. Mixed into `ResourceStore`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace as with_fields

from apiserver.registry import deletion
from apiserver.registry.context import DeleteOptions, DeleteResult, ListOptions, ListPage, RequestContext
from apiserver.registry.hooks import DELETE, Obj
from apiserver.registry.reading import storage_errors
from apiserver.registry.writer import ATTEMPTS, Current, ResourceWriter
from apiserver.storage.form import decode
from machinery.errors import (
    Conflict,
    NotFound,
    StatusError,
)

DELETES_AT_ONCE = 16

ORPHANED_PODS = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)


class Deleting(ResourceWriter):
    """DELETE."""

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
        if not self._dependents:
            options = with_fields(options, propagation_policy="Background", orphan_dependents=None)
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
