"""Objectives: one number of an architecture, to be made small or limited.

Those of the package stand in `builtin`; a further one is a file of its own.
"""

from nas.core.objective import Objective
from nas.core.registry import Registry

registry: Registry[Objective] = Registry("objective", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["component", "get", "names", "register", "registry"]
