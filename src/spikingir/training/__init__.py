"""Training: one loop for ANN, quantised ANN and SNN, and the recipes that ship."""
