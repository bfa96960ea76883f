"""Keeps a node usable when it runs out of memory, disk or process ids: conditions, reclaiming, eviction of pods."""
