"""The instructions that ``headrace up`` prints once everything runs, ready to copy."""

import ipaddress
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from headrace.readiness import for_url
from shared.settings import Settings

#: The same command as in the README, except for the port.
CURL = (
    'curl -N {base}/chat/stream {key}-H "Content-Type: application/json" '
    """-d '{{"provider":"demo","model":"demo","messages":[{{"role":"user","content":"Tell me a story"}}]}}'"""
)


def banner(settings: Settings, providers: Mapping[str, str]) -> str:
    """Return the text. ``providers``: their names; each with what is wrong with it, or nothing."""
    base = f"http://{_display_host(settings.host)}:{settings.port}"
    chat = f"{_command()} chat" if settings.port == 8000 else f"{_command()} chat --url {base}"
    key = '-H "Authorization: Bearer $KEY" ' if settings.authentication else ""
    return "\n".join(
        (
            f"Headrace runs at {base}/ — open it in a browser, or:",
            "",
            f"  {CURL.format(base=base, key=key)}",
            "",
            "Interrupted? Resume after any line `id:`; the stream's id is in the header X-Stream-Id:",
            "",
            f'  curl -N {base}/chat/stream/STREAM_ID {key}-H "Last-Event-ID: LAST_ID"',
            "",
            f'In the terminal, with automatic resume:  {chat} "Tell me a story"',
            *_credentials(settings),
            f"Providers: {_shown(providers)}",
        )
    )


def _command() -> str:
    """Return the command as a shell in this directory finds it."""
    if shutil.which("headrace"):
        return "headrace"
    path = Path(sys.executable).parent / "headrace"
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _credentials(settings: Settings) -> list[str]:
    methods = {"keys": f"a key (KEY=$({_command()} keys create NAME))", "jwt": f"a token for {settings.jwt_audience}"}
    enabled = [text for method, text in methods.items() if method in settings.authentication]
    return [f"Requests need {' or '.join(enabled)}; headrace chat reads HEADRACE_API_KEY"] if enabled else []


def _display_host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return "localhost" if address.is_loopback or address.is_unspecified else for_url(host)


def _shown(providers: Mapping[str, str]) -> str:
    hint = "" if len(providers) > 1 else " (OPENAI_API_KEY, ANTHROPIC_API_KEY, OLLAMA_HOST or --config FILE add more)"
    tested = f"; {_command()} check tests it"
    named = [f"{name} ({problem}{tested})" if problem else name for name, problem in providers.items()]
    return ", ".join(named) + hint
