"""The Prometheus metrics that gateways and workers have in common. Label sets are bounded."""

from prometheus_client import Counter

SWEPT = Counter("headrace_swept_streams_total", "What the sweep did, by this process", ["reason"])
