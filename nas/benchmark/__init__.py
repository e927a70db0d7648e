"""How many evaluations a search needs: all algorithms and other tools on published tables."""
