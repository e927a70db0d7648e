"""Compression of trained networks: what can be changed in them, and how."""
