"""What the algorithms on Optuna's samplers share: a run of ask and tell on a study in memory."""
