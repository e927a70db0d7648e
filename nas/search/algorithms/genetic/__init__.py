"""What genetic algorithms share: settings, operators on genes, a run of ask and tell on pymoo."""
