"""`nanokube demo`: stories that a cluster tells by itself, step by step, with the evidence of each step."""
