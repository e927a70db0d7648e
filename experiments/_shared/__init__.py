"""Helpers that several experiments share; scripts put `experiments/` on the path for them."""
