"""Observe, decide, guard, act, learn. Knows the ports and no adapter: it cannot tell a real cluster from an embedded
one.
"""
