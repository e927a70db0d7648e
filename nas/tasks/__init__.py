"""Tasks: what networks predict, one task a file."""

from nas.core.registry import Registry
from nas.core.task import Metric, Task

registry: Registry[Task] = Registry("task", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["Metric", "Task", "component", "get", "names", "register", "registry"]
