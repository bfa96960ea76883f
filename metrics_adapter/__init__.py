"""metrics-adapter: custom.metrics.k8s.io and external.metrics.k8s.io from a Prometheus, behind aggregation.

Owns: the rules that turn series into metrics of objects (prometheus-adapter's configuration form), the list of what
there is, and the answers, asked of Prometheus at that moment. Never stores a value. Talks to Prometheus (HTTP) and to
the API server (which resources and objects there are, who may ask); asked by the API server on behalf of users.
"""
