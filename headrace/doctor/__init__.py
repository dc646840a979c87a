"""The command ``headrace doctor``: examines a running Headrace, and the proxies between it and this machine."""
