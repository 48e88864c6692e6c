"""Models that ship, and those of the user's own: what they say of themselves, and how they are loaded."""
