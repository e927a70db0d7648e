"""Search spaces: one space a file."""

from nas.core.registry import Registry
from nas.network.space import SearchSpace

registry: Registry[SearchSpace] = Registry("search space", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["component", "get", "names", "register", "registry"]
