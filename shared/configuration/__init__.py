"""Providers, aliases and prices: from ``headrace.toml`` and from the environment's short forms."""
