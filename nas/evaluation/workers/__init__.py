"""What evaluators that run on workers share."""

import nas.cluster  # noqa: F401 - before Ray itself, which reads what it sets
