"""Layers that several spaces share."""
