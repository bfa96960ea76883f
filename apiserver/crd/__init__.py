"""CustomResourceDefinitions: kinds that are data.

Owns what the API server does with definitions: naming conditions, serving each version's resources while the server
runs, their schemas (pruning, defaults, validation), tables, discovery and OpenAPI entries, and the removal of a
definition's objects. Never: stores anything by itself (the registry does). Put together by `apiserver.assembly`.
"""
