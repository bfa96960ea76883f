"""API aggregation: group versions that other servers answer.

Owns: which APIServices there are and whether their backends answer, the passing on of requests under the front proxy's
identity, and what backends tell of themselves (discovery, OpenAPI). Never answers for a backend. Called by the REST
door; talks to the registry and, over TLS, to backends.
"""
