"""A device of a node of a Ray cluster, marked by a custom resource."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.core.errors import ConfigError, DeviceError
from nas.devices import register
from nas.devices.agent.elsewhere import Elsewhere
from nas.devices.agent.job import run_job
from nas.devices.agent.protocol import GRACE_SECONDS, JobRequest, one_line

PREFIX = "device:"


@register("ray_node")
@dataclass(frozen=True, kw_only=True)
class RayNode(Elsewhere):
    """Measures on the node of a Ray cluster that carries the custom resource `device:NODE`.

    One measurement at a time, as long as the node has one piece of the resource. `job_seconds`
    counts from when a job is handed to Ray.

    Attributes:
        node: The name behind `device:`.
        address: Of the cluster, where this process is not connected to one already; a study is
            connected to that of `ray.address`.
    """

    node: str
    address: str = "auto"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A setting is out of its range.
        """
        super().__post_init__()
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.node):
            raise ConfigError("device.node", self.node, "letters, digits, '.', '_' and '-'")

    @property
    def place(self) -> str:
        """The node."""
        return f"Ray node {self.node}"

    def _run(self, request: JobRequest, files: Sequence[Path]) -> Any:
        # Ray takes a second to load.
        import ray
        from ray import exceptions

        from nas.cluster.connection import connected, first_line

        contents = {
            file.sha256: path.read_bytes() for file, path in zip(request.files, files, strict=True)
        }
        resource = PREFIX + self.node
        with connected(self.address):
            self._check_there(ray.cluster_resources(), resource)  # type: ignore[no-untyped-call]
            # Its processor cores belong to trainings, which pause while a device measures.
            task = ray.remote(num_cpus=0, resources={resource: 1}, max_retries=0)(_do)
            running = task.remote(request.to_dict(), contents)
            ended: list[Any] = []
            try:
                ended, _ = ray.wait([running], timeout=self.job_seconds)
                if not ended:
                    line = f"no answer within its limit of {self.job_seconds:g} s"
                    raise DeviceError(f"{self.place}: {line}; raise device.job_seconds")
                return ray.get(running)
            except exceptions.RayError as error:
                cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
                line = f"{type(cause).__name__}: {one_line(first_line(cause))}"
                raise DeviceError(f"{self.place}: the job was lost ({line})") from error
            finally:
                # Cancelling a task that has just ended can bring Ray itself down.
                if not ended:
                    ray.cancel(running)
                    with contextlib.suppress(exceptions.RayError):
                        ended, _ = ray.wait([running], timeout=GRACE_SECONDS)
                        if not ended:
                            ray.cancel(running, force=True)

    def _check_there(self, resources: dict[str, float], resource: str) -> None:
        if resources.get(resource, 0) >= 1:
            return
        known = ", ".join(sorted(name for name in resources if name.startswith(PREFIX)))
        start = f"""ray start --address=HEAD:PORT --resources='{{"{resource}": 1}}'"""
        raise DeviceError(
            f"{self.place}: got a cluster whose nodes carry {known or 'no device'}, expected "
            f"{resource}; run {start} there, and set ray.address to that cluster"
        )


def _do(record: dict[str, Any], contents: dict[str, bytes]) -> dict[str, Any]:
    """Do a job on the node; see `run_job`."""
    request = JobRequest.from_dict(record)
    with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
        for index, file in enumerate(request.files):
            (Path(name) / file.name(index)).write_bytes(contents[file.sha256])
        return run_job(request, Path(name))
