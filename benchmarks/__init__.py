"""Timed comparisons, run by hand (`make bench`) and never asserted in tests."""
