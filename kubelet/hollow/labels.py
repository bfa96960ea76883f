"""The labels by which hollow nodes are known."""

LABEL = "nanokube.io/hollow"
ROLE = "node-role.kubernetes.io/hollow"
