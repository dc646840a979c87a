"""Authentication of callers and their grants."""
