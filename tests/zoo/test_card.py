"""A model's card holds what was measured of it; a later answer takes the place of an earlier one."""

from dataclasses import replace
from pathlib import Path

import pytest

from spikingir.zoo.card import card, record_test
from spikingir.zoo.catalogue import Model, ModelError, Variant
from spikingir.zoo.measured import ENERGY_COLUMNS, TESTS_FILE, TestRow, read_tests, table_of_tests

SNN = {column: float(i) for i, column in enumerate(ENERGY_COLUMNS, 1)}
ANN = {column: 10.0 * i for i, column in enumerate(ENERGY_COLUMNS, 1)}
ROW = TestRow(
    "bsd68", 68, "snn.safetensors", "T = 5, phased, binary", "abc1234", "2026-11-26", sigma=25, degraded_psnr=20.48,
    ann_psnr=28.7, ann_ssim=0.82, psnr=28.81, ssim=0.8123, conversion_rate=100.38, spikes_per_neuron=1.5,
    spikes_per_synapse=0.9, ann_mj=ANN, snn_mj=SNN, int8_twin_mj=0.75,
)  # fmt: skip
ALONE = TestRow("dehaze-real", 26, "snn.safetensors", "T = 5", "abc1234", "2026-11-26", e=0.5, r=1.25, saturated=0.004)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    variant = Variant("snn.safetensors", "phased", 5)
    return Model(
        tmp_path, "mine", "denoise", 1, (variant,), variant.file, sigma=25, architecture="dncnn", licence="MIT"
    )


def made(model: Model, **options: object) -> str:
    stages = [["ann", "random weights", "", "10", "2 of 8x8", "0.10", "20.00 dB"]]
    texts = {"recipe": "mine", "data": "Photographs.", "not_for": "rain."}
    return card(model, stages=stages, machines=["a machine"], **texts, **options)  # type: ignore[arg-type]


def rows_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_the_card_says_what_there_is_to_know(model: Model) -> None:
    text = made(model, note="Much is left to gain.")
    for said in (
        "# mine",
        "sigma 25 of 255",
        "(dncnn)",
        "`spikingir train mine",
        "| ann | random weights |",
        "a machine",
    ):
        assert said in text
    for said in ("Photographs.", "Much is left to gain.", "MIT. The images", "matters; rain."):
        assert said in text
    assert "bsd68" not in text


def test_rows_come_back_as_they_were_written(model: Model) -> None:
    (model.folder / "README.md").write_text(made(model))
    for row in (ROW, ALONE, replace(ROW, sigma=50), replace(ROW, limit=3, crop=128)):
        record_test(model, row)
    assert read_tests(model.folder) == [ROW, ALONE, replace(ROW, sigma=50), replace(ROW, limit=3, crop=128)]
    better = replace(ROW, psnr=29.0, commit="def5678")
    record_test(model, better)
    assert read_tests(model.folder)[0] == better
    assert len(read_tests(model.folder)) == 4


def test_the_card_shows_the_rows_and_keeps_the_rest(model: Model) -> None:
    path = model.folder / "README.md"
    path.write_text(made(model))
    for row in (ROW, ALONE, replace(ROW, psnr=29.0)):
        record_test(model, row)
    text = path.read_text()
    assert text == made(model, tests=[replace(ROW, psnr=29.0), ALONE])
    _, compared, alone = (rows_of(part)[-1] for part in (text.split("## Data")[0], *text.split("| photographs")))
    quality = ["bsd68", "25", "T = 5, phased, binary", "20.48", "28.70", "29.00", "0.8123", "100.4"]
    energy = ["1.00 (10.00)", "2.00 (20.00)", "3.00 (30.00)", "4.00 (40.00)", "5.00 (50.00)"]
    assert compared == [*quality, "0.90", *energy, "0.75", "abc1234"]
    assert alone == ["dehaze-real", "T = 5", "0.50", "1.25", "0.40", "", *[""] * 5, "", "abc1234"]


def test_a_part_of_a_set_says_so() -> None:
    assert "| bsd68 (3 images, the middle 64 x 64) | 25, seed 7 |" in table_of_tests(
        [replace(ROW, images=3, limit=3, crop=64, seed=7)]
    )
    assert table_of_tests([]) == ""


def test_a_card_that_was_written_by_hand_gets_the_table_under_its_results(model: Model) -> None:
    path = model.folder / "README.md"
    path.write_text("# mine\n\n## Results\n\nBy hand.\n\n## Licence\n")
    record_test(model, ROW)
    text = path.read_text()
    assert text.index("## Results") < text.index("| bsd68 |") < text.index("By hand.") < text.index("## Licence")
    record_test(model, ALONE)
    assert path.read_text().count("By hand.") == path.read_text().count("<!-- tests -->") == 1


@pytest.mark.parametrize("text", [None, "# mine\n\nno place\n"])
def test_without_a_place_for_it_nothing_is_written(model: Model, text: str | None) -> None:
    if text is not None:
        (model.folder / "README.md").write_text(text)
    with pytest.raises(ModelError, match=r"mine has no card: write .*with a heading '## Results'"):
        record_test(model, ROW)
    assert not (model.folder / TESTS_FILE).exists()


def test_a_mark_without_its_end_is_refused(model: Model) -> None:
    (model.folder / "README.md").write_text("## Results\n\n<!-- tests -->\n")
    with pytest.raises(ModelError, match="has a mark <!-- tests --> and no <!-- end tests --> after it"):
        record_test(model, ROW)
    assert not (model.folder / TESTS_FILE).exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"rows": 3}', '{"rows": [{"data": "bsd68"}]}', '{"rows": [{"datum": 1}]}']
)
def test_a_damaged_record_is_refused(model: Model, content: str) -> None:
    (model.folder / TESTS_FILE).write_text(content)
    with pytest.raises(ModelError, match=r"tests\.json is no record of tests"):
        read_tests(model.folder)
