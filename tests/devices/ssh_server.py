"""An OpenSSH server on this host, which stands for a board."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from fast_device import FAST

import nas
import nas.devices
from nas.core.host import LEASE_FOLDER_VARIABLE
from nas.core.measurement import Device

_PATIENCE_SECONDS = 30.0
_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin yes
"""


class SshServer:
    """A running `sshd` with keys of its own; a context manager."""

    def __init__(self, folder: Path) -> None:
        sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if sshd is None or shutil.which("ssh") is None:
            pytest.skip("no sshd here: apt-get install openssh-server openssh-client")
        self.folder, self._sshd = folder, sshd
        self.lease = folder / "lease"
        for name in ("host_key", "user_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (folder / "config").write_text(_CONFIG.format(port=self.port, folder=folder))
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        command = [self._sshd, "-D", "-E", str(self.folder / "log"), "-f", f"{self.folder}/config"]
        self.process = psutil.Popen(command)
        patience = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                assert time.monotonic() < patience, (self.folder / "log").read_text()
                time.sleep(0.05)

    def __enter__(self) -> SshServer:
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and every connection."""
        self.disconnect()
        self.process.terminate()
        self.process.wait()

    def disconnect(self) -> bool:
        """Cut every connection; return whether there was one."""
        sessions = [p for p in self.process.children(recursive=True) if p.name() == "sshd"]
        for session in sessions:
            session.kill()
        return bool(sessions)

    @property
    def settings(self) -> dict[str, str]:
        """How a device reaches the board."""
        options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
        given = " ".join(f"-o {option}" for option in (*options, "LogLevel=ERROR"))
        login = f"-p {self.port} -i {self.folder}/user_key {getpass.getuser()}@127.0.0.1"
        root = Path(nas.__file__).parent.parent
        variables = f"PYTHONPATH={root} {LEASE_FOLDER_VARIABLE}={self.lease}"
        return {
            "command": f"ssh -F none {given} {login}",
            "python": f"env {variables} {sys.executable}",
        }

    def device(self, **fields: Any) -> Device:
        """Return the board with few rounds."""
        return nas.devices.get("remote", **(FAST | self.settings | fields))
