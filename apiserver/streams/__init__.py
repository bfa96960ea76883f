"""Streams between a client and a kubelet: logs, exec, attach. The API server is the middle of each."""
