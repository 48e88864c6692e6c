"""The paper's tables and figures measured anew, beside what it printed.

Run from a checkout, as ``python -m reproduce``; not in the wheel.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Weights of baselines that were trained, a folder for each model that they are compared with."""

RECIPES = Path(__file__).parent / "recipes"
"""Recipes of baselines and controls."""
