import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from spikingir.environment import environment, install_command


def test_settings_hold_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKINGIR_TEST_OLD", "before")
    with suppress(KeyError), environment({"SPIKINGIR_TEST_OLD": "now", "SPIKINGIR_TEST_NEW": "1"}):
        assert (os.environ["SPIKINGIR_TEST_OLD"], os.environ["SPIKINGIR_TEST_NEW"]) == ("now", "1")
        raise KeyError
    assert os.environ["SPIKINGIR_TEST_OLD"] == "before"
    assert "SPIKINGIR_TEST_NEW" not in os.environ


@pytest.mark.parametrize(
    ("file", "content", "extra", "alone"),
    [
        (
            "pipx_metadata.json",
            "{}",
            "pipx inject spikingir 'spikingir[web]'",
            "pipx inject spikingir x --pip-args=--no-deps",
        ),
        (
            "uv-receipt.toml",
            "",
            "uv tool install --with 'spikingir[web]' spikingir",
            "uv pip install --python '{}' --no-deps x",
        ),
        (
            "pyvenv.cfg",
            "uv = 0.9\n",
            "uv pip install --python '{}' 'spikingir[web]'",
            "uv pip install --python '{}' --no-deps x",
        ),
        ("pyvenv.cfg", "home = /uv\n", "pip install 'spikingir[web]'", "pip install --no-deps x"),
        (None, "", "pip install 'spikingir[web]'", "pip install --no-deps x"),
    ],
)
def test_an_extra_is_added_by_the_tool_that_installed_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None, content: str, extra: str, alone: str
) -> None:
    prefix = tmp_path / "spikingir"
    prefix.mkdir()
    if file == "uv-receipt.toml":  # such an environment is one of uv's, too
        (prefix / "pyvenv.cfg").write_text("uv = 0.9\n", encoding="utf-8")
    if file is not None:
        (prefix / file).write_text(content, encoding="utf-8")
    monkeypatch.setattr(sys, "prefix", str(prefix))
    assert install_command("spikingir[web]") == extra.format(prefix)
    assert install_command("x", alone=True) == alone.format(prefix)
