"""Fake provider: OpenAI's and Anthropic's APIs with answers of known content, and recorded responses."""
