"""A job as it is done where the hardware is.

`python -m nas.devices.agent.job` does the one that `request.json` in the working directory
describes, and writes `answer.json`. The files lie beside them, named by their place: `0.onnx`. It
ends when its standard input does, so that it outlives no agent.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
import threading
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas import devices
from nas.core.errors import ConfigError, HwnasError
from nas.core.files import json_values, write_json_atomically
from nas.core.measurement import Device, Measurement
from nas.devices.agent.elsewhere import Elsewhere
from nas.devices.agent.protocol import (
    GRACE_SECONDS,
    JobRequest,
    ModelFile,
    Refusal,
    digest,
    one_line,
)


def run_job(request: JobRequest, folder: Path) -> dict[str, Any]:
    """Do a job.

    Args:
        request: What to do.
        folder: Where its files lie, named as `ModelFile.name` says.

    Returns:
        `identity` and `measurements`, or the one line of an `error`, in which files have the
        names that `ModelFile.name` gives them.
    """
    try:
        device = local_device(request.device)
        paths = [_checked(folder, i, file) for i, file in enumerate(request.files)]
        records = [m.to_dict() for m in _measured(device, paths, request)]
        answer = {"identity": device.identity(), "measurements": records}
        return typing.cast("dict[str, Any]", json_values(answer))
    except HwnasError as error:
        return {"error": one_line(error).replace(f"{folder}{os.sep}", "")}


def local_device(settings: Mapping[str, Any]) -> Device:
    """Build a device of this machine from settings that somebody else sent.

    Raises:
        ConfigError: There is no such device here, or a field is unknown, missing, of another type
            or out of its range.
    """
    name = settings.get("name")
    # Before anything is imported by that name.
    if not isinstance(name, str) or name not in devices.names():
        raise ConfigError("device.name", name, "one of " + ", ".join(devices.names()))
    cls = devices.component(name)
    if issubclass(cls, Elsewhere):
        raise ConfigError("device.name", name, "a device of the board itself, such as cpu")
    fields = {field: value for field, value in settings.items() if field != "name"}
    hints = typing.get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for field, value in fields.items():
        if field in known and not _fits(value, hints[field]):
            raise ConfigError(f"device.{field}", value, f"a value of the type {hints[field]}")
    return devices.get(name, **fields)


def _measured(device: Device, paths: list[Path], request: JobRequest) -> list[Measurement]:
    if not paths:
        return []
    return device.measure_files(
        paths,
        request.input_shape,
        memory=request.memory,
        seed=request.seed,
        seconds_per_model=request.seconds_per_model,
    )


def _checked(folder: Path, index: int, file: ModelFile) -> Path:
    path = folder / file.name(index)
    if digest(path) != file.sha256:
        raise HwnasError(f"{path}: its SHA-256 is another one than the job says; send it again")
    return path


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value may become a field of the type `hint`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return any(value == a and type(value) is type(a) for a in arguments)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value)
        pairs = zip(value, arguments, strict=False)
        return len(value) == len(arguments) and all(_fits(v, a) for v, a in pairs)
    if origin is dict:
        return isinstance(value, dict) and all(
            isinstance(key, str) and _fits(item, arguments[1]) for key, item in value.items()
        )
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return hint in (bool, int, str, types.NoneType) and type(value) is hint


def _end_with_the_agent(lifeline: int) -> None:
    """Wait until the agent's end of the pipe closes, then end what runs here."""
    while os.read(lifeline, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_SECONDS)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _stop(number: int, frame: types.FrameType | None) -> typing.NoReturn:
    del frame
    raise SystemExit(128 + number)


def main() -> None:
    """Do the job in the working directory."""
    # Unwinds the stack, so that temporary files and processes are put away.
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_the_agent, args=[sys.stdin.fileno()], daemon=True).start()
    folder = Path.cwd()
    try:
        request = JobRequest.from_dict(json.loads((folder / "request.json").read_text("utf-8")))
    except Refusal as refusal:
        answer: dict[str, Any] = {"error": refusal.line}
    else:
        answer = run_job(request, folder)
    write_json_atomically(folder / "answer.json", answer)


if __name__ == "__main__":
    main()
