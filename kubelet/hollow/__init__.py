"""Hollow nodes: many simulated nodes in one process, registering and reporting as real ones. Nothing runs on them."""
