"""The README's profile works, and its tables name each option and each method."""

import re
from pathlib import Path
from typing import Any, Final

import pytest

import headrace_conformance
from headrace_conformance import Profile
from headrace_conformance.cli import main
from headrace_conformance.profile import FEATURES
from headrace_conformance.provider.scripts import ANSWERS

README: Final = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_profile_is_a_profile() -> None:
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Mine" in block)
    names: dict[str, Any] = {}
    exec(block, names)
    profile = names["Mine"]()
    assert isinstance(profile, Profile)
    assert set(profile.lacks) <= set(FEATURES)
    request = profile.attach(headrace_conformance.Stream("7", headrace_conformance.Ask("m", "p")), "3")
    assert (request.path, request.headers) == ("/answers/7", {"Last-Event-ID": "3"})


def test_each_method_and_feature_is_named() -> None:
    section = README.partition("## Write your own profile")[2]
    own = {name for name in vars(Profile) if not name.startswith("_")} - {"name", "title", "reference"}
    assert [name for name in (*sorted(own), *FEATURES) if name not in section] == []


def test_each_option_and_script_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "proxy"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        options = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)) - {"--host"}
        assert [option for option in sorted(options) if option not in README] == []
    assert [script for script in ANSWERS if f"`{script}`" not in README] == []
