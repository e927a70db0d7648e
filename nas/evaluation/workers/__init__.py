"""What evaluators share: workers on Ray."""
