"""Streams between a client and a node: logs, exec, attach, port-forward, proxy; the API server is in the middle."""
