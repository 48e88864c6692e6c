"""How well a network restores a test set, and at what cost."""
