"""Runtimes: one way of running networks a file."""

from nas.core.registry import Registry
from nas.devices.measuring.runtime import Runtime

registry: Registry[Runtime] = Registry("device.runtime", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["component", "get", "names", "register", "registry"]
