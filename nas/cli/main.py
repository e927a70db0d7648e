"""The `nas` command.

Rooms load inside the commands that need them, so that `nas --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.cli import device, studies
from nas.cli.device import print_json
from nas.cli.parser import CONFIGURED, parser
from nas.core.ending import Terminated, end_orderly, ignore_interrupts
from nas.core.errors import HwnasError
from nas.core.output import Output, output_is_optional, tell

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

QUICKSTART = (
    ("search", "experiment=quickstart"),
    ("export", "quickstart", "--pick", "knee", "--out", "out/quickstart"),
)
"""Commands that `nas quickstart` runs."""

_SHOWN_PACKAGES = 3
"""Of those that are missing, how many are named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or another one after a one-line error.

    It is 2 where something was wrong, and the shell's where a signal ended the command.

    Args:
        arguments: `None` for those of the process, which then ends with this call.
    """
    if arguments is None:
        end_orderly()
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    out, err = Output(sys.stdout), Output(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = _run_command(given)
        out.flush()
        # `head` and the like close the pipe when they have read enough.
        unread = isinstance(out.error, BrokenPipeError)
        if out.error is not None and out.needed and not unread and status == 0:
            tell(f"standard output: cannot be written ({out.error.strerror})")
            status = 2
        err.flush()
    for output, descriptor in ((out, 1), (err, 2)):
        if output.error is not None:
            # Python writes what is left at its exit, and would fail once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    if arguments is None:
        ignore_interrupts()
    return status


def _open_closed_streams() -> None:
    """Open closed standard streams: a file that is opened next would get their descriptors."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _run_command(given: Sequence[str]) -> int:
    """Run a command; return its exit status, and say why where that is not 0."""
    try:
        if given and given[0] in CONFIGURED:
            module = importlib.import_module(_CONFIGURED.get(given[0], f"nas.cli.{given[0]}"))
            return int(getattr(module, f"{given[0]}_command")(given[1:]))
        parsed = parser().parse_args(given)
        return _COMMANDS[parsed.command](parsed)
    except HwnasError as error:
        tell(error)
        return 2
    except ModuleNotFoundError:
        missing = _missing_packages()
        if not missing:
            raise
        line = f"{given[0]!r} needs packages that are not installed ({missing})"
        tell(f"{line}: pip install 'hwnas[search]'")
        return 2
    except OSError as error:
        if error.errno is None:
            raise
        full = error.errno in _DISK_FULL
        fix = "free space" if full else "check that it exists and what this user may do there"
        where = error.filename or ("disk" if full else Path(sys.argv[0]).name)
        line = f"{where}: {error.strerror}; {fix}, and run the command again"
        tell(f"{line}; what was finished is kept")
        return 2
    except (KeyboardInterrupt, Terminated) as end:
        tell("interrupted; what was finished is kept, run the command again")
        return end.status if isinstance(end, Terminated) else 130
    except SystemExit as ended:  # of argparse, after a help or the version, or of a user's module
        return _exit_status(ended.code)


def _exit_status(code: object) -> int:
    """Return the exit status for the code of a `SystemExit`; a text is printed, as Python does."""
    if code is None or isinstance(code, int):
        return code or 0
    tell(code)
    return 1


def _missing_packages() -> str:
    """Return which packages of the extra `search` are not installed, the first few by name."""
    from importlib import metadata

    def installed(name: str) -> bool:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return False
        return True

    of_search = re.compile(r"""extra\s*==\s*["']search["']""")
    lines = (metadata.requires("hwnas") or []) if installed("hwnas") else []
    required = [line.partition(";")[0] for line in lines if of_search.search(line)]
    names = [re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in required]
    missing = [name for name in names if not installed(name)]
    return ", ".join(missing[:_SHOWN_PACKAGES] + ["..."] * (len(missing) > _SHOWN_PACKAGES))


def _spaces(parsed: argparse.Namespace) -> int:
    from nas.cli import spaces

    records = spaces.list_spaces()
    if parsed.json:
        return print_json(records)
    spaces.print_spaces(records)
    return 0


def _show(parsed: argparse.Namespace) -> int:
    from nas.cli import spaces
    from nas.results.drawing import draw_graphs
    from nas.study.checking import import_modules

    import_modules(parsed.imports)
    space, genotype = spaces.find(parsed.space, parsed.network, parsed.preset, parsed.settings)
    record = spaces.description(space, genotype)
    if parsed.json:
        return print_json(record)
    output_is_optional()
    path = parsed.out or Path(f"{record['arch_id']}.png")
    draw_graphs(space.graphs(genotype), f"{parsed.space} {record['arch_id']}", path)
    spaces.print_network(record)
    sys.stdout.write(f"{path}\n")
    return 0


def _fetch(parsed: argparse.Namespace) -> int:
    del parsed
    output_is_optional()
    from nas.data import fashion_mnist as data

    cached, installed = (
        all((folder / name).is_file() for name in data.MD5)
        for folder in (data.cache_folder(), data.SYSTEM_FOLDER)
    )
    # `fetch` also repairs what is in the cache, so it is left out only where nothing is.
    folder = data.SYSTEM_FOLDER if installed and not cached else data.fetch()
    sys.stdout.write(f"{folder}\n")
    return 0


def _doctor(parsed: argparse.Namespace) -> int:
    from nas.cli.doctor import doctor_command

    return doctor_command(parsed)


def _quickstart(parsed: argparse.Namespace) -> int:
    del parsed
    for command in QUICKSTART:
        sys.stdout.write(f"$ {shlex.join(['nas', *command])}\n")
        sys.stdout.flush()
        if status := _run_command(command):
            return status
    return 0


_CONFIGURED = {"compress": "nas.cli.search"}
"""Modules of the commands whose settings Hydra composes, where they are not named like these."""

_COMMANDS = {
    "studies": studies.studies_command,
    "pareto": studies.pareto_command,
    "compare": studies.compare_command,
    "report": studies.report_command,
    "ui": studies.ui_command,
    "plot": studies.plot_command,
    "pack": studies.pack_command,
    "unpack": studies.unpack_command,
    "sensitivity": studies.sensitivity_command,
    "explain": studies.explain_command,
    "reproduce": studies.reproduce_command,
    "export": studies.export_command,
    "predict": studies.predict_command,
    "spaces": _spaces,
    "show": _show,
    "fetch": _fetch,
    "device": device.device_command,
    "doctor": _doctor,
    "quickstart": _quickstart,
}

if __name__ == "__main__":
    sys.exit(main())
