import os
from contextlib import suppress

import pytest

from spikingir.environment import environment


def test_settings_hold_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKINGIR_TEST_OLD", "before")
    with suppress(KeyError), environment({"SPIKINGIR_TEST_OLD": "now", "SPIKINGIR_TEST_NEW": "1"}):
        assert (os.environ["SPIKINGIR_TEST_OLD"], os.environ["SPIKINGIR_TEST_NEW"]) == ("now", "1")
        raise KeyError
    assert os.environ["SPIKINGIR_TEST_OLD"] == "before"
    assert "SPIKINGIR_TEST_NEW" not in os.environ
