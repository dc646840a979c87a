"""The servers that hold Headrace's data: one Redis, or the masters of a Redis or Valkey Cluster (docs/adr/0020).

No process uses this package before the scripts are split into steps of one slot each.
"""
