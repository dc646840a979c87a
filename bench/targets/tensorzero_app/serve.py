"""TensorZero's gateway, run by its own Python: ``serve.py CONFIG ADDRESS`` writes its URL to the file ADDRESS."""

import importlib
import signal
import sys
from pathlib import Path

tensorzero = importlib.import_module("tensorzero")  # only its own environment has it

config, address = sys.argv[1:]
gateway = tensorzero._start_http_gateway(
    config_file=config, clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
partial = Path(f"{address}.partial")
partial.write_text(gateway.base_url)
partial.rename(address)
signal.pause()
