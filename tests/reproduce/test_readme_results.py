"""The README says what the results say."""

import pytest

from reproduce.document import Table, as_markdown
from reproduce.readme_results import README, RESULTS, updated
from reproduce.report import SUMMARY


def test_results_are_those_of_the_report() -> None:
    if not RESULTS.is_file():
        pytest.skip("docs/results.md is not there yet: make it with python -m reproduce summary --docs docs/results.md")
    readme = README.read_text("utf-8")
    assert updated(readme, RESULTS.read_text("utf-8")) == readme, "run python -m reproduce.readme_results"


def test_only_the_table_changes() -> None:
    table = Table(("network", "PSNR, dB"), (("ANN", "29.06"),), SUMMARY)
    report = as_markdown([table], "")
    readme = README.read_text("utf-8")
    changed = updated(readme, report)
    assert "| ANN | 29.06 |" in changed
    assert updated(changed, report) == changed
    before, after = (text.split(f"<!-- end {SUMMARY} -->") for text in (readme, changed))
    assert before[1] == after[1]
    with pytest.raises(ValueError, match="there is no <!-- results -->"):
        updated("# SpikingIR", report)
