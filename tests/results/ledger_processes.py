"""Processes that write one ledger."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

IMPORTS = """
import sys
sys.path.insert(0, sys.argv[2])
from made_up_studies import GENES, make_trial
from nas.core.errors import LedgerError
from nas.results.ledger import Ledger, Writer
from nas.results.optuna_writer import StudyWriter
"""
TOGETHER = """
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
"""
WRITER = f"""{IMPORTS}
ledger = Ledger.open(sys.argv[1], "digits", ("error", "latency_ms"), GENES)
"""
OWNED = f"""{IMPORTS}{TOGETHER}
try:
    writer = Writer(owner=sys.argv[3], place=sys.argv[3])
    ledger = Ledger.open(sys.argv[1], "digits", ("error", "latency_ms"), GENES, writer)
    for number in range(6):
        ledger.append(make_trial(number, float(sys.argv[4]), 1.0))
except LedgerError as error:
    sys.stdout.write(str(error))
    sys.exit(2)
"""
RACING = f"""{WRITER}
# Both arrive at the database.
StudyWriter._check_token = lambda self, rows: None
{TOGETHER}
for number in range(10):
    try:
        ledger.append(make_trial(number, float(sys.argv[3]), 1.0))
        sys.stdout.write(f"{{number}} ")
    except LedgerError as error:
        assert "another process" in str(error), error
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that writes the ledger at the URL that is the first of `arguments`."""
    folder = str(Path(__file__).parent)
    url, *more = arguments
    command = [sys.executable, "-c", code, url, folder, *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def at_once(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Let processes go on together; return what they say then."""
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    return [each.communicate(timeout=100)[0] for each in processes]
