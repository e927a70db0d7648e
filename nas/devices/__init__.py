"""Devices: one way of running and timing networks a file."""

from nas.core.measurement import Device
from nas.core.registry import Registry

registry: Registry[Device] = Registry("device", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["component", "get", "names", "register", "registry"]
