"""Metrics as Prometheus reads them: names, labels and values; and ``promtool``, from Debian's package
``prometheus``."""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

_SERIES = re.compile(r"\b((?:headrace|gen_ai)_\w+|up\b)(?:\{([^}]*)\})?")
_GROUPS = re.compile(r"\bby \(([^)]*)\)")
#: Labels that Prometheus adds to every series.
OF_PROMETHEUS = {"instance", "job"}


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


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which must succeed, and return its output. Skip the test if it is missing; in CI, fail it."""
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no promtool; apt-get install prometheus")
        pytest.skip("no promtool; apt-get install prometheus")
    ended = subprocess.run([program, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
