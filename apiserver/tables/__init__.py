"""Server-side Tables: what `kubectl get` prints.

Owns: column definitions per kind and the pure functions that turn an object into cells, one module per API group.
Never: reads storage or a clock (the caller passes `now`), never decides list metadata or media types. Called by the
REST door.
"""

from apiserver.tables.registry import TableRenderer, custom_table, table_for

__all__ = ["TableRenderer", "custom_table", "table_for"]
