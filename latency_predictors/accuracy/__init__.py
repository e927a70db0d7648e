"""How accurate latency predictors are: what `nas benchmark predictor` prints."""
