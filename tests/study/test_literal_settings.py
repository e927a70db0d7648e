"""What OmegaConf would resolve stays text, once a configuration has been resolved."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from nas.core.errors import ConfigError
from nas.study.checking import completed, structured


@dataclass(frozen=True, kw_only=True)
class Settings:
    texts: tuple[str, ...] = ()
    number: int = 0


@pytest.mark.parametrize("text", ["${oc.env:HWNAS_SECRET}", r"a\${b}", r"\\${oc.env:X}", "$x {y}"])
def test_a_text_is_taken_as_it_stands(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_SECRET", "not-for-your-eyes")
    assert structured(Settings, {"texts": [text]}, "data").texts == (text,)
    assert completed(Settings, {"texts": [text]}, "data")["texts"] == [text]
    with pytest.raises(ConfigError) as refused:
        structured(Settings, {"number": text}, "data")
    assert "not-for-your-eyes" not in str(refused.value)
