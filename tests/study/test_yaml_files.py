"""Files of settings that cannot be used: one line, which names the file and the line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nas.core.errors import HwnasError
from nas.study.composition import compose
from nas.study.folder import StudyFolder
from nas.study.yaml_files import read_yaml

HEADER = b"# @package _global_\n"
BOMB = b"a: &a [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (now, now, b", ".join([b"*%c" % (now - 1)] * 10))
    for now in range(ord("b"), ord("j"))
)

# What stands behind the header, and the line at which it is wrong.
WRONG: Mapping[str, tuple[bytes, int]] = {
    "alias bomb": (BOMB, 6),
    "alias within itself": (b"a: &a [*a]\n", 2),
    "object of Python": (b"seed: 1\nname: !!python/object/apply:os.system [touch it_ran]\n", 3),
    "path of Python": (b"name: !!python/object/apply:pathlib.Path [x]\n", 2),
    "name of Python": (b"name: !!python/name:os.system\n", 2),
    "own tag": (b"name: !secret x\n", 2),
    "repeated setting": (b"seed: 1\nname: x\nseed: 2\n", 4),
    "repeated setting in a section": (b"search:\n  lookahead: 1\n  lookahead: 2\n", 4),
    "tab": (b"search:\n\tlookahead: 1\n", 3),
    "Latin-1": ("seed: 1\nname: gr\u00fcn\n".encode("latin-1"), 3),
    "cut": (b"search: {objectives: [error\n", 3),
    "text": (b"no settings\n", 2),
    "list": (b"- seed\n", 2),
    "nested deeply": (b"a: " + b"[" * 3000 + b"]" * 3000, 1),
    "key that is a list": (b"? [a]\n: b\n", 2),
    "text as a whole number": (b"seed: 1\nname: !!int abc\n", 3),
    "whole number of many digits": (b"seed: " + b"9" * 5000, 2),
    "no date": (b"seed: 1\nname: !!timestamp 9999-99-99\n", 3),
    "text as a date": (b"name: !!timestamp abc\n", 2),
    "text as a truth value": (b"name: !!bool abc\n", 2),
    "empty whole number": (b"name: !!int ''\n", 2),
    "text as a number": (b"name: !!float abc\n", 2),
    "list as a mapping": (b"name: !!map [a]\n", 2),
    "mapping as a list": (b"name: !!seq {a: b}\n", 2),
    "many settings": (
        b"more: {%s}" % b", ".join(b"a%d: 1" % number for number in range(60_000)),
        2,
    ),
    "zero byte": (b"name: a\x00b\n", 1),
}


def assert_refused(text: str, file: Path, line: int) -> None:
    assert text.startswith(f"{file}:{line}: ")
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize("case", WRONG)
def test_a_file_of_the_users_own(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, line = WRONG[case]
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_bytes(HEADER + content)
    with pytest.raises(HwnasError) as refused:
        compose(["experiment=mine"], config_dir=tmp_path)
    assert_refused(str(refused.value), file, line)
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("case", WRONG)
def test_the_configuration_of_a_study(case: str, tmp_path: Path) -> None:
    content, line = WRONG[case]
    (tmp_path / "config.yaml").write_bytes(HEADER + content)
    with pytest.raises(HwnasError) as refused:
        StudyFolder(tmp_path).saved()
    assert_refused(str(refused.value), tmp_path / "config.yaml", line)


def test_a_byte_order_mark(tmp_path: Path) -> None:
    # Behind it Hydra would not see the header, and take the settings for those of a section.
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_bytes(b"\xef\xbb\xbf" + HEADER + b"seed: 3\n")
    with pytest.raises(HwnasError) as refused:
        compose(["experiment=mine"], config_dir=tmp_path)
    assert_refused(str(refused.value), file, 1)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(HwnasError, match=r"config\.yaml: is no regular file"):
        read_yaml(tmp_path / "config.yaml")


@pytest.mark.parametrize("name", ["plain", "it's", "back\\slash", "sp ace", "br[ack]et", "${x}"])
def test_a_file_that_can_be_used(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    (folder / "experiment").mkdir(parents=True)
    text = "defaults:\n  - override /data: digits\nseed: 3\nmore: &m [1, 2e3]\nagain: *m\n"
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\n" + text)
    config = compose(["experiment=mine"], config_dir=folder)
    assert (config.seed, config.data.name) == (3, "digits")
    assert OmegaConf.to_container(config.again) == [1, 2000.0]
