"""Liveness, readiness and startup probes, and lifecycle hooks."""
