"""The README says what the results say."""

import re

import pytest

from reproduce.document import Table, as_markdown
from reproduce.readme_results import README, RESULTS, updated
from reproduce.report import SUMMARY
from spikingir.store import from_pretrained
from spikingir.zoo.catalogue import model_names, read_shipped


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


def test_the_readme_says_v0_and_alpha_of_what_ships() -> None:
    """Hidden neurons one way, signed outputs the paper's."""
    found = set()
    for model in map(read_shipped, model_names()):
        for variant in model.variants:
            network = from_pretrained(model.folder / variant.file)
            neurons = [network.neuron(name) for name in network.layers]
            found |= {(neuron.signed, neuron.v0, neuron.alpha) for neuron in neurons}
    said = " ".join(README.read_text("utf-8").split())
    sentence = re.search(
        r"Hidden neurons of all networks that ship have v0 = (\S+) and alpha = (\S+), where the paper has (\S+) and "
        r"(\S+) \+ (\S+), as their signed outputs do",
        said,
    )
    assert sentence is not None
    v0, alpha, v0_signed, half, more = ({"1/2": 0.5}.get(one) or float(one) for one in sentence.groups())
    assert found == {(False, v0, alpha), (True, v0_signed, half + more)}
