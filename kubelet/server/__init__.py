"""KubeletService: logs, exec, attach, port-forward and statistics for the API server."""
