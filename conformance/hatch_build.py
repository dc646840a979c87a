"""Build hook: puts the recorded responses of providers from the repository's tests into the package."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CASES = "headrace_conformance/provider/cases"


class RecordedCases(BuildHookInterface):
    """Adds tests/cases/*.jsonl to a build from the repository. A source package has them already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        recorded = sorted((Path(self.root).parent / "tests" / "cases").glob("upstream*.jsonl"))
        if recorded:
            build_data["force_include"] |= {str(path): f"{CASES}/{path.name}" for path in recorded}
        elif not any((Path(self.root) / CASES).glob("upstream*.jsonl")):
            raise FileNotFoundError(f"{CASES}: recorded responses are missing; build from the repository")
