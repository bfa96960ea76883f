"""Recorded conversations with a real API server, replayed against ours.

`conversations/` holds requests and the answers that kube-apiserver 1.36 gave (one file per scenario, one line per
step); `differences.json` names the steps that we answer differently, each with its reason. A step that differs and is
not named fails, and so does a named one that does not differ: the list can only shrink honestly.

New recordings are brought in by `python -m tests.golden.bring_in FILE…`.
"""
