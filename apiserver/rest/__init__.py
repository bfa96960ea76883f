"""The REST door: Kubernetes' HTTP API as a raw ASGI application over the registry. See `apiserver/rest/door.py`."""
