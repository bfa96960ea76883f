"""Expressions (CEL): compiling, evaluating, and Kubernetes' functions besides the standard ones.

`compiling` makes and runs expressions, `library` is the table of functions, the other modules are their families. The
CEL library costs 18 MiB, so it is imported with the first expression. Never knows schemas or requests.
"""
