"""What every aggregated API server of ours has in common: its HTTPS door, who may ask, discovery and OpenAPI.

Owns: TLS and HTTP/1.1 for a read-only API, delegated authentication and authorization, the documents an API server
tells of itself, and the order in which a request is judged. Never knows what a resource means: `metrics_server` and
`metrics_adapter` do. Talks to the API server (reviews).
"""
