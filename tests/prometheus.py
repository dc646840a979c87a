"""Metrics as Prometheus reads them: names, labels and values; ``prometheus`` and ``promtool``, from Debian's package
``prometheus``."""

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.ports import free_port

_SERIES = re.compile(r"\b((?:headrace|gen_ai)_\w+|up\b)(?:\{([^}]*)\})?")
_GROUPS = re.compile(r"\bby \(([^)]*)\)")
#: Labels that Prometheus adds to every series.
OF_PROMETHEUS = {"instance", "job", "alertname"}


class Metrics:
    """Metrics by name. ``labels``: for each name, all labels that it has anywhere."""

    def __init__(self, text: str) -> None:
        self.labels: dict[str, set[str]] = defaultdict(set)
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.labels[sample.name] |= set(sample.labels)
                self._samples[sample.name].append((sample.labels, sample.value))

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of all samples that have these labels."""
        return sum(value for has, value in self._samples[name] if labels.items() <= has.items())

    def values(self, name: str, label: str) -> set[str]:
        return {has[label] for has, _ in self._samples[name] if label in has}


def missing_in(query: str, metrics: Metrics) -> list[str]:
    """Return names and labels of a query that the metrics lack."""
    found = _SERIES.findall(query)
    known = set().union(*(metrics.labels[name] for name, _ in found)) | OF_PROMETHEUS
    missing = [name for name, _ in found if name not in metrics.labels and name != "up"]
    for name, matchers in found:
        missing += [f"{name}{{{label}}}" for label in re.findall(r"(\w+)\s*[=!]", matchers) if label not in known]
    grouped = {label.strip() for labels in _GROUPS.findall(query) for label in labels.split(",")}
    return missing + [f"by ({label})" for label in sorted(grouped - known)]


def slo_rules_in(folder: Path, rules: Path) -> Path:
    """Write a copy of rules that are evaluated as often as Prometheus' configuration says, and return its path."""
    copy = folder / "rules.yml"
    copy.write_text(re.sub(r"^    interval: .*\n", "", rules.read_text(), flags=re.MULTILINE))
    return copy


@contextmanager
def prometheus(folder: Path, target: str, rules: Sequence[Path]) -> Iterator[str]:
    """Run Prometheus with one target, ``host:port``, and yield its URL. Skip the test if it is missing; in CI, fail
    it."""
    program = _need("prometheus")
    job = {"job_name": "headrace-gateway", "static_configs": [{"targets": [target]}]}
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration = {"global": every, "rule_files": [*map(str, rules)], "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    port = free_port()
    options = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
    address = f"--web.listen-address=127.0.0.1:{port}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program, *options, address], stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which must succeed, and return its output. Skip the test if it is missing; in CI, fail it."""
    ended = subprocess.run(
        [_need("promtool"), *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def _need(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(f"no {name}; apt-get install prometheus")
        pytest.skip(f"no {name}; apt-get install prometheus")
    return program
