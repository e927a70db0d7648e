"""A device of a node of a Ray cluster, marked by a custom resource."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from nas.core.errors import ConfigError, DeviceError, first_line
from nas.devices import register
from nas.devices.measuring.device import ProcessDevice
from nas.devices.measuring.process import MeasuringProcess

PREFIX = "device:"


@register("ray_node")
@dataclass(frozen=True, kw_only=True)
class RayNode(ProcessDevice):
    """Measures on the node of a Ray cluster that carries the custom resource `device:NODE`.

    One measurement at a time, as long as the node has one piece of the resource.

    Attributes:
        node: The name behind `device:`.
        address: Of the cluster, where this process is not connected to one already; a study is
            connected to that of `ray.address`.
    """

    here: ClassVar[bool] = False

    node: str
    address: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.node):
            raise ConfigError("device.node", self.node, "letters, digits, '.', '_' and '-'")

    def _process(self) -> MeasuringProcess:
        return NodeProcess(
            node=self.node, address=self.address, timeout_seconds=self.timeout_seconds
        )


class NodeProcess(MeasuringProcess):
    """A measuring process on a node: an actor of Ray, which is asked from here."""

    def __init__(self, *, node: str, address: str, timeout_seconds: float) -> None:
        """Start the actor, which starts the process; see `RayNode` and `MeasuringProcess`.

        Raises:
            DeviceError: No node of the cluster carries the resource.
        """
        # Ray takes a second to load.
        import ray

        from nas.cluster.connection import connected

        self._place, resource = f"Ray node {node}", PREFIX + node
        with contextlib.ExitStack() as opened:
            opened.enter_context(connected(address))
            self._check_there(ray.cluster_resources(), resource)  # type: ignore[no-untyped-call]
            # Its processor cores belong to trainings, which pause while a device measures.
            options: dict[str, Any] = {"num_cpus": 0, "resources": {resource: 1}, "max_restarts": 0}
            remote: Any = ray.remote(**options)(MeasuringProcess)
            self._actor = remote.remote(timeout_seconds=timeout_seconds)
            opened.callback(lambda: ray.kill(self._actor))
            self._opened = opened.pop_all()

    def ask(
        self, op: str, *, about: str, work_seconds: float = 0.0, **arguments: Any
    ) -> dict[str, Any]:
        import ray
        from ray import exceptions

        asked = {"about": about, "work_seconds": work_seconds, **arguments}
        try:
            answer: dict[str, Any] = ray.get(self._actor.ask.remote(op, **asked))
        except exceptions.RayError as error:
            cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
            if isinstance(cause, DeviceError):
                raise DeviceError(self._line(str(cause))) from error
            line = f"{about}: lost during {op!r} ({type(cause).__name__}: {first_line(cause)})"
            raise DeviceError(self._line(line)) from error
        return answer

    def close(self) -> None:
        self._opened.close()

    def _check_there(self, resources: dict[str, float], resource: str) -> None:
        if resources.get(resource, 0) >= 1:
            return
        known = ", ".join(sorted(name for name in resources if name.startswith(PREFIX)))
        start = f"""ray start --address=HEAD:PORT --resources='{{"{resource}": 1}}'"""
        raise DeviceError(
            f"{self._place}: got a cluster whose nodes carry {known or 'no device'}, expected "
            f"{resource}; run {start} there, and set ray.address to that cluster"
        )
