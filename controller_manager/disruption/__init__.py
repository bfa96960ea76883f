"""PodDisruptionBudget: how many pods of a selection may be disrupted now.

plan.py       the arithmetic of a budget's status
controller.py finds the pods and their owners, writes the status

The eviction subresource of the API server spends what is computed here; this controller sees the evicted pods go.
"""
