"""Copies the summary of docs/results.md into the README, so that the two cannot drift apart.

    python -m reproduce.readme_results

`tests/test_readme.py` checks that this would change nothing.
"""

from pathlib import Path

from reproduce.document import between_markers
from reproduce.report import SUMMARY

ROOT = Path(__file__).parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "docs" / "results.md"


def updated(readme: str, results: str) -> str:
    """The README with the summary of the results in the place of its own.

    Raises:
        ValueError: A mark is missing in one of them.
    """
    return readme.replace(between_markers(readme, SUMMARY), between_markers(results, SUMMARY))


def main() -> None:
    """Rewrite the README."""
    README.write_text(updated(README.read_text("utf-8"), RESULTS.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
