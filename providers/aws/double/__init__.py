"""A stand-in for EC2 over real HTTP: moto's server, with the buying behaviour that moto does not have.

For tests, the demo and replays; nothing outside this package imports moto. Needs the extra ``demo``.
"""

CONTROL = "/tidegate/"
"""Path under which the double takes orders for itself."""
