"""A configuration is read as a whole, and everything that is wrong with it is reported with its line."""

from pathlib import Path

import pytest

from shared.configuration.configuration import Configuration, load_configuration
from shared.configuration.document import ConfigurationError
from shared.configuration.entries import Target
from shared.configuration.secret_sources import SecretSource, SecretUnreadable
from shared.configuration.toml_lines import lines_of
from shared.settings import Settings
from workers.providers.endpoint import endpoints_of

WHOLE = """
[providers.alpha]
kind = "openai"
base_url = "http://127.0.0.1:9001/v1"
api_keys = ["env:ALPHA_KEY", "file:/run/secrets/alpha2"]
auth = "bearer"
models = ["llama-3.3-70b"]
headers = { "x-team" = "chat" }
connect_timeout_s = 5
first_token_timeout_s = 61
idle_timeout_s = 62
concurrent_streams = 200
requests_per_minute = 1000
tokens_per_minute = 2_000_000
deny = ["mcp_servers", "service_tier", "tools.web_search"]
quirks = { stream_options = false }
background = false

[providers.beta]
kind = "ollama"

[models.fast]
targets = ["alpha/llama-3.3-70b", { target = "beta/qwen-3", weight = 3 }]
fallbacks = ["openai/gpt-5-mini"]

[prices."alpha/llama-3.3-70b"]
currency = "USD"
as_of = "2026-11-01"
input = 0.5
cached_input = 0.1
cache_write = 0.6
output = 1.5
reasoning = 1.5
"""


def loaded(folder: Path, text: str, **settings: object) -> Configuration:
    path = folder / "headrace.toml"
    path.write_text(text)
    return load_configuration(Settings.model_validate({"config": path, **settings}))


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    lines = str(caught.value).splitlines()
    prefix = f"{folder / 'headrace.toml'}:"
    assert all(line.startswith(prefix) for line in lines)
    return [line.removeprefix(prefix) for line in lines]


def test_every_key_of_the_example_is_accepted(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, WHOLE)
    alpha = configuration.providers["alpha"]
    assert [str(source) for source in alpha.api_keys] == ["env:ALPHA_KEY", "file:/run/secrets/alpha2"]
    assert configuration.aliases["fast"].targets[1] == Target(target="beta/qwen-3", weight=3)
    assert configuration.prices["alpha/llama-3.3-70b"].output == 1.5
    timeouts = configuration.timeouts("alpha", "llama-3.3-70b")
    assert (timeouts.connect_s, timeouts.first_token_s, timeouts.between_tokens_s) == (5, 61, 62)
    assert configuration.timeouts("beta").first_token_s == 60


def test_timeouts_of_one_model_go_before_those_of_its_provider(tmp_path: Path) -> None:
    changes = {"alpha/llama-3.3-70b": {"first_token_s": 7}}
    configuration = loaded(tmp_path, WHOLE, model_timeouts=changes)
    assert configuration.timeouts("alpha", "llama-3.3-70b").first_token_s == 7
    assert configuration.timeouts("alpha", "other").first_token_s == 61


def test_all_problems_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """[providers.alpha]
kind = "openai"
base_url = "127.0.0.1:9001/v1"
api_keys = [
  "env:ALPHA_KEY",
  "sk-123",
]
headrs = { "x-team" = "chat" }
quirks = { stream_option = false }

[providers.beta]
kind = "openia"
[models.fast]
targets = ["alpha/x", { target = "beta/y", weigth = 3 }]

[prices."alpha/x"]
currency = "usd"
as_of = "2026-11-01"
input = -1
"""
    assert problems(tmp_path, text) == [
        "3: providers.alpha.base_url: does not begin with http:// or https://; write the whole URL",
        "4: providers.alpha.api_keys entry 2: not the place of a secret; write it as env:NAME or file:/absolute/path",
        "8: providers.alpha.headrs: unknown key; did you mean headers?",
        "9: providers.alpha.quirks.stream_option: unknown key; did you mean stream_options?",
        "12: providers.beta.kind: unknown value; use openai, openai-responses, anthropic, anthropic-bedrock,"
        " anthropic-vertex, ollama or demo",
        "14: models.fast.targets entry 2.weigth: unknown key; did you mean weight?",
        '16: prices."alpha/x".output: missing; add it',
        '17: prices."alpha/x".currency: not in the form ^[A-Z]{3}$; correct it',
        '19: prices."alpha/x".input: too small; set a number from 0',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[models.alpha]\ntargets = ['alpha/x']", "1: models.alpha: already the name of a provider; choose another"),
        (
            "[models.'alpha/m']\ntargets = ['alpha/x']",
            '1: models."alpha/m": already the name of a model of provider alpha; choose another',
        ),
        ("[models.x]\ntargets = ['alpha/x']", "1: models.x: already the name of a model of provider alpha; choose"),
        ("[models.a]\ntargets = ['none/x']", "2: models.a.targets entry 1: no provider 'none'; use one of "),
        ("[models.a]\ntargets = ['alpha/y']", "2: models.a.targets entry 1: provider alpha does not list 'y' in its"),
        ("[models.a]\ntargets = []", "2: models.a.targets: too short"),
        ("[models.a]\ntargets = ['alpha/x']\nfallbacks = ['b']", "3: models.a.fallbacks entry 1: no provider 'b'"),
        (
            "[prices.'none/x']\ncurrency='USD'\nas_of='2026-11-01'\ninput=1\noutput=1",
            '1: prices."none/x": no provider',
        ),
    ],
)
def test_names_mean_one_thing(tmp_path: Path, text: str, problem: str) -> None:
    provider = "\n[providers.alpha]\nkind = 'openai'\nmodels = ['x']\n"
    (found,) = problems(tmp_path, text + provider)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("kind = 'ollama'\nauth = 'entra'", "auth: entra does not exist for kind ollama; use bearer"),
        ("kind = 'demo'\napi_keys = ['env:A']", "api_keys: kind demo has none; remove them"),
        ("kind = 'openai'\nheaders = { Authorization = 'x' }", "'Authorization' is set by Headrace; use api_keys"),
        ("kind = 'openai'\nregion = 'eu'", "region: kind openai has none; remove it"),
        (
            "kind = 'anthropic-bedrock'\nregion = 'eu'\nproject = 'p'\nmodels = ['m']",
            "project: kind anthropic-bedrock",
        ),
        ("kind = 'anthropic-bedrock'\nmodels = ['m']", "region: kind anthropic-bedrock needs it; set it, such as"),
        ("kind = 'anthropic-vertex'", "models: kind anthropic-vertex has no list of models; name them"),
        ("kind = 'ollama'\nresponses_models = ['x']", "responses_models: only kind openai has both APIs; remove it"),
        (
            "kind = 'ollama'\nbackground = true",
            "background: kind ollama cannot store answers; remove it, or use kind",
        ),
        ("kind = 'anthropic'\nbackground = true", "background: kind anthropic cannot store answers"),
        ("kind = 'demo'\nbackground = true", "background: kind demo cannot store answers"),
        (
            "kind = 'openai'\nbase_url = 'http://127.0.0.1:9/v1'\nbackground = true",
            "background: no model is asked by Responses; set responses_models, or remove background",
        ),
        ("kind = 'openai'\nresponses_models = []\nbackground = true", "background: no model is asked by Responses"),
        (
            "kind = 'anthropic'\ncontinues = 'prefix'",
            "continues: prefix does not exist for kind anthropic; use assistant_prefill",
        ),
        (
            "kind = 'openai-responses'\ncontinues = 'prefix'",
            "continues: prefix does not exist for kind openai-responses; remove it",
        ),
        (
            "kind = 'ollama'\ncontinues_models = ['x']",
            "continues_models: continues is not set; set it or remove this",
        ),
        (
            "kind = 'openai'\nquirks = { repeats_prefix = true }",
            "quirks.repeats_prefix: continues is not set; set it or remove this",
        ),
    ],
)
def test_keys_fit_the_kind(tmp_path: Path, table: str, problem: str) -> None:
    (found,) = problems(tmp_path, f"[providers.alpha]\n{table}")
    assert problem in found


def test_all_keys_that_do_not_fit_the_kind_are_named_at_once(tmp_path: Path) -> None:
    text = """[providers.alpha]
kind = "demo"
api_keys = ["env:A"]
auth = "bearer"
project = "p"
region = "eu"
[providers.beta]
kind = "anthropic-bedrock"
project = "p"
models = [5]
headrs = {}
"""
    assert problems(tmp_path, text) == [
        "3: providers.alpha.api_keys: kind demo has none; remove them",
        "4: providers.alpha.auth: bearer does not exist for kind demo; remove it",
        "5: providers.alpha.project: kind demo has none; remove it",
        "6: providers.alpha.region: kind demo has none; remove it",
        "7: providers.beta.region: kind anthropic-bedrock needs it; set it, such as eu-central-1",
        "9: providers.beta.project: kind anthropic-bedrock has none; remove it",
        "10: providers.beta.models entry 1: not text; use quotes",
        "11: providers.beta.headrs: unknown key; did you mean headers?",
    ]


@pytest.mark.parametrize(
    "table",
    [
        "kind = 'openai-responses'",
        "kind = 'openai'",
        "kind = 'openai'\nbase_url = 'http://127.0.0.1:9/v1'\nresponses_models = ['*-pro']",
    ],
)
def test_answers_asked_for_by_responses_may_be_stored(tmp_path: Path, table: str) -> None:
    configuration = loaded(tmp_path, f"[providers.alpha]\n{table}\nbackground = true")
    assert configuration.providers["alpha"].background


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[providers", "not valid TOML: "),
        (b"\xff", "not UTF-8; save it as UTF-8"),
        (b"a = " + b"[" * 5000, "not valid TOML: it is nested too deeply"),
        (None, "no such file or directory; set HEADRACE_CONFIG or --config to a readable file"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "headrace.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(Settings(config=path))
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_a_provider_of_the_file_replaces_the_short_form(tmp_path: Path) -> None:
    own = "[providers.openai]\nkind = 'openai'\nbase_url = 'http://127.0.0.1:1/v1'"
    settings = {"OPENAI_BASE_URL": "http://127.0.0.1:2/v1", "OLLAMA_HOST": "127.0.0.1"}
    configuration = loaded(tmp_path, own, **settings)
    assert configuration.providers["openai"].base_url == "http://127.0.0.1:1/v1"
    assert configuration.replaced == ("openai",)
    assert list(configuration.providers) == ["demo", "openai", "ollama"]


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    first = loaded(tmp_path, WHOLE).hash
    assert loaded(tmp_path, "# a comment\n" + WHOLE, OLLAMA_HOST="127.0.0.1").hash == first
    assert loaded(tmp_path, WHOLE.replace("weight = 3", "weight = 4")).hash != first


def test_a_provider_without_its_key_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("key-two\n")
    keys = f"api_keys = ['env:ALPHA_KEY', 'file:{tmp_path / 'key'}', 'env:ALPHA_KEY']"
    configuration = loaded(tmp_path, f"[providers.alpha]\nkind = 'openai'\n{keys}")
    endpoints, missing = endpoints_of(configuration)
    assert list(endpoints) == ["demo"]
    assert missing == ["providers.alpha.api_keys: env:ALPHA_KEY is empty; set the variable"]
    monkeypatch.setenv("ALPHA_KEY", "key-one")
    endpoints, missing = endpoints_of(configuration)
    assert [key.text for key in endpoints["alpha"].keys] == ["key-one", "key-two"]
    assert missing == []


def test_an_unreadable_secret_is_named_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-one\nsk-two")
    for source, problem in (
        (SecretSource("file", str(path)), f"file:{path} is not one line of printable ASCII; check its content"),
        (SecretSource("file", str(tmp_path / "none")), f"file:{tmp_path}/none: no such file or directory"),
    ):
        with pytest.raises(SecretUnreadable) as caught:
            source.read()
        assert str(caught.value).startswith(problem)


def test_lines_are_those_of_the_statements() -> None:
    text = 'a = 1\n[b."c.d"] # x\ne = """\n[f]\ng = 1\n"""\nh = [\n 1,\n]\ni.j = 2\n'
    assert lines_of(text) == {
        ("a",): 1,
        ("b", "c.d"): 2,
        ("b", "c.d", "e"): 3,
        ("b", "c.d", "h"): 7,
        ("b", "c.d", "i"): 10,
        ("b", "c.d", "i", "j"): 10,
    }
