"""Training one network well."""
