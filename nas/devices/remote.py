"""A device of another machine, on which `nas device serve` runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.core.errors import ConfigError, HwnasError
from nas.devices import register
from nas.devices.agent.client import AgentClient, host_and_port
from nas.devices.agent.elsewhere import Elsewhere
from nas.devices.agent.protocol import JobRequest
from nas.devices.agent.secret import VARIABLE, read_token


@register("remote")
@dataclass(frozen=True, kw_only=True)
class Remote(Elsewhere):
    """Measures on another machine, through its agent.

    The agent's token is read when it is needed and kept nowhere.

    Attributes:
        address: `HOST:PORT` of the agent.
        token_file: File that holds the agent's token; `None` for the variable `HWNAS_TOKEN`.
        busy_seconds: How long to wait while somebody else measures there.
        retry_seconds: Without an answer after which the board is lost.
    """

    address: str
    token_file: str | None = None
    busy_seconds: float = 600.0
    retry_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A setting is out of its range.
        """
        super().__post_init__()
        host_and_port(self.address)
        for name in ("busy_seconds", "retry_seconds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"device.{name}", getattr(self, name), "0 or more seconds")

    @property
    def place(self) -> str:
        """The agent's address."""
        return self.address

    def _run(self, request: JobRequest, files: Sequence[Path]) -> Any:
        token = read_token(self.token_file)
        if token is None:
            fix = f"set {VARIABLE} or device.token_file"
            raise HwnasError(f"{self.address}: got no token, expected the agent's; {fix}")
        client = AgentClient(
            address=self.address,
            token=token,
            busy_seconds=self.busy_seconds,
            retry_seconds=self.retry_seconds,
        )
        return client.run(request, files)
