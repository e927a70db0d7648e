"""What predictors share: the networks that a calibration measures, and their features."""
