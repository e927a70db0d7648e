"""Choosing what to evaluate: the problem, the algorithms and the loop."""
