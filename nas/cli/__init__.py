"""The `nas` command."""
