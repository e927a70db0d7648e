"""What rules of successive halving share: a ladder of fidelities and the ranking on a rung."""
