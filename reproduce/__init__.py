"""The paper's tables and figures measured anew, beside what it printed.

Run from a checkout, as ``python -m reproduce``; not in the wheel.
"""

from pathlib import Path
from typing import Literal

WEIGHTS = Path(__file__).parent / "weights"
"""Weights of baselines that were trained, a folder for each model that they are compared with."""

RECIPES = Path(__file__).parent / "recipes"
"""Recipes of baselines and controls."""

Target = Literal[
    "summary",
    "table1",
    "table2",
    "table3",
    "figure2",
    "figure3",
    "ablation",
    "steps",
    "latency",
    "published",
    "all",
]
"""What can be measured anew, all of it or a part."""
