"""A hook that changes texts reaches every text that a provider gets."""

from shared.hooks import texts_of, with_texts
from shared.schemas import ChatRequest

SECRET = "ann@example.com"
REQUEST = ChatRequest.model_validate(
    {
        "model": "openai/a",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "mail",
                    "description": f"sends mail to {SECRET}",
                    "parameters": {"type": "object", "properties": {"to": {"type": "string", "description": SECRET}}},
                },
            }
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object", "description": f"for {SECRET}"}},
        },
    }
)


def test_texts_of_tools_and_of_the_response_format_are_shown_and_changed() -> None:
    assert sum(SECRET in text for text in texts_of(REQUEST)) == 3
    changed = with_texts(REQUEST, lambda text: text.replace(SECRET, "[address]"))
    assert changed is not None
    assert SECRET not in changed.model_dump_json()
    assert changed.messages == REQUEST.messages


def test_without_a_match_nothing_changes() -> None:
    assert with_texts(REQUEST, lambda text: text.replace("nothing", "")) is None
