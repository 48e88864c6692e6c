"""The shipped models make of twelve images what they made of them, sample for sample."""

import json

from tests.golden_photographs import GOLDEN, RUNS, digests


def test_restored_photographs_are_as_kept() -> None:
    kept = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert len(kept) == 12 * len(RUNS)
    assert dict(digests()) == kept
