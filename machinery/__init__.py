"""What every component speaks: time, errors, quantities, selectors, patches, certificates, process life.

Owns no state and knows no component. Never imports `api` or `client`. Everybody imports it.
"""
