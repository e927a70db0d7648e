"""The search algorithms that propose any architecture of a space."""

from nas.core.relaxation import RelaxationSettings
from nas.search import algorithms

# What trains relaxed networks finds one architecture a target, and needs images.
NAMES = [
    n for n in algorithms.names() if not issubclass(algorithms.component(n), RelaxationSettings)
]
