"""A photograph: its formats, its metadata, and its pixels as the networks take them."""
