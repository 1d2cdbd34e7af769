"""Kinds, values and ports of the engine. Knows no adapter."""
