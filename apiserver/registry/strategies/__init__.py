"""One small strategy module per irregular kind; regular kinds use the generic `Strategy` with a row of settings.

Owns what create, update and delete mean for a kind. Never reads or writes storage. Looked up through
`apiserver.registry.strategy.strategy_for`.
"""
