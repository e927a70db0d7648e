"""Data sets and their three-way splits: one data set a file."""

from nas.core.dataset import Dataset
from nas.core.registry import Registry

registry: Registry[Dataset] = Registry("data set", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["component", "get", "names", "register", "registry"]
