"""Seeing: named questions about load, answered by a Prometheus server or by the embedded series store."""
