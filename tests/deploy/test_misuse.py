"""The native module refuses whatever does not fit it; no call of it ends the process."""

import subprocess
import sys
from pathlib import Path

import pytest

from spikingir.deploy import engine

pytestmark = pytest.mark.skipif(not engine.native_available(), reason="SpikingIR was installed without a compiler")

LEAST = 1000


def test_every_misuse_is_an_exception() -> None:
    from spikingir.deploy import _native

    script = Path(__file__).with_name("misuse.py")
    ended = subprocess.run([sys.executable, script, _native.__file__], capture_output=True, text=True, check=False)
    tried = ended.stdout.splitlines()
    assert ended.returncode == 0, f"{tried[-1:]} ended the process: {ended.stderr[-2000:]}"
    outcomes = dict(line.split(" -> ") for line in tried)
    assert len(outcomes) >= LEAST
    assert {name for name, outcome in outcomes.items() if outcome not in ("TypeError", "ValueError")} == set()
