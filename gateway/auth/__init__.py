"""Who asks, and what that gives a right to."""
