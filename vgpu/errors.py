"""Errors of the whole distribution's root, and those of the ground.

Every error says which field was wrong, which value it had and what to do about it.
"""


class TidegateError(Exception):
    """Root of every error that Tidegate raises on purpose."""


class InvalidRequest(TidegateError, ValueError):
    """A device, node, request or recorded allocation that no world can contain."""


class LedgerError(TidegateError):
    """A recorded allocation that does not add up with what the inventory holds."""
