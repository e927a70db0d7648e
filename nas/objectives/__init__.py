"""Objectives: one number of an architecture, to be made small or limited.

Those of the package stand in `builtin`; a further one is a file of its own name.
"""

from nas.core.objective import Objective
from nas.core.registry import Registry

registry: Registry[Objective] = Registry(
    "objective",
    __name__,
    families={
        "builtin": (
            "counted_memory_mb",
            "error",
            "latency_ms",
            "latency_ms_published",
            "macs_m",
            "params_m",
            "peak_memory_mb",
        )
    },
)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["component", "get", "names", "register", "registry"]
