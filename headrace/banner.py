"""What ``headrace up`` says when everything runs: how to use it, ready to be copied."""

import ipaddress

from headrace.readiness import for_url
from shared.settings import Settings

#: Shown as it stands in the README; the port follows the settings.
CURL = (
    'curl -N {base}/chat/stream {key}-H "Content-Type: application/json" '
    """-d '{{"provider":"demo","model":"demo","messages":[{{"role":"user","content":"Tell me a story"}}]}}'"""
)


def greeting(settings: Settings) -> str:
    base = f"http://{_shown(settings.host)}:{settings.port}"
    chat = "headrace chat" if settings.port == 8000 else f"headrace chat --url {base}"
    key = '-H "Authorization: Bearer $KEY" ' if settings.authentication else ""
    return "\n".join(
        (
            f"Headrace runs at {base}/ — open it in a browser, or:",
            "",
            f"  {CURL.format(base=base, key=key)}",
            "",
            "Interrupted? Every line `id:` is a place to go on from; the stream's id is in the header X-Stream-Id:",
            "",
            f'  curl -N {base}/chat/stream/STREAM_ID {key}-H "Last-Event-ID: LAST_ID"',
            "",
            f'In the terminal, resuming by itself:  {chat} "Tell me a story"',
            *_who_may_ask(settings),
            f"Providers: {', '.join(_providers(settings))}",
        )
    )


def _who_may_ask(settings: Settings) -> list[str]:
    ways = {"keys": "a key (KEY=$(headrace keys create NAME))", "jwt": f"a token for {settings.jwt_audience}"}
    asked = [words for way, words in ways.items() if way in settings.authentication]
    return [f"Who asks shows {' or '.join(asked)}; headrace chat takes it from HEADRACE_API_KEY"] if asked else []


def _shown(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return "localhost" if address.is_loopback or address.is_unspecified else for_url(host)


def _providers(settings: Settings) -> list[str]:
    configured = {
        "openai": settings.openai_api_key or settings.openai_base_url,
        "anthropic": settings.anthropic_api_key or settings.anthropic_base_url,
        "ollama": settings.ollama_host,
    }
    named = [name for name, value in configured.items() if value]
    return ["demo", *named] if named else ["demo (OPENAI_API_KEY, ANTHROPIC_API_KEY, OLLAMA_HOST add more)"]
