"""Streams between a client and a node: logs, exec, attach, port-forward, proxy. The API server is the middle of each."""
