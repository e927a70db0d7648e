"""Values, interfaces, errors, registry and seeding; imports nothing heavy."""
