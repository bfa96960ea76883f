"""Admission webhooks: other people's programs that change or refuse writes.

`rules` tells which hooks a write concerns, `review` what is said to them and what their answers mean, `call` carries it
over HTTPS, `plugin` asks in order. Without configured hooks a write costs one look at an empty cache.
"""
