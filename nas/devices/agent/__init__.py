"""Measuring where the hardware is: the agent that serves a board, and its client."""
