"""Training data: image folders, noise, and patches drawn with a seed of their own."""
