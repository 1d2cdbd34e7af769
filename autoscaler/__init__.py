"""Sees the cluster, decides through policies, acts through Kubernetes and providers."""

__version__ = "0.1.0"
