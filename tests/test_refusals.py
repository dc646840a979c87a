"""Refusals name a field in many forms; a complaint about a value, or a list of fields, names none."""

from typing import Any

import pytest

from workers.providers.refusals import named_fields
from workers.providers.refused_fields import ANTHROPIC_FIELDS, OLLAMA_FIELDS, OPENAI_FIELDS


def reported(message: str, **members: Any) -> dict[str, Any]:
    return {"message": message, "type": "invalid_request_error", **members}


def at_body(field: str, message: str, kind: str, **members: Any) -> dict[str, Any]:
    return {"detail": [{"type": kind, "loc": ["body", *field.split(".")], "msg": message, **members}]}


NOT_PERMITTED = "Extra inputs are not permitted"
NAMED: list[tuple[str, object]] = [
    # OpenAI and Azure.
    (
        "max_tokens",
        reported(
            "Unsupported parameter: 'max_tokens' is not supported with this model."
            " Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        ),
    ),
    ("max_tokens", reported("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")),
    ("max_tokens", reported("Please use max_completion_tokens instead of max_tokens for this model.")),
    ("parallel_tool_calls", reported("Unrecognized request argument supplied: parallel_tool_calls")),
    (
        "stream_options",
        reported("Unknown parameter: 'stream_options'.", param="stream_options", code="unknown_parameter"),
    ),
    ("reasoning_effort", reported("Unsupported parameter: 'reasoning_effort' is not supported with this model.")),
    ("stream_options", reported("bad request", param="stream_options.include_usage")),
    (
        "system",
        reported(
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            param="messages[0].role",
            code="unsupported_value",
        ),
    ),
    # FastAPI, with either pydantic, as JSON, quoted and printed by Python.
    ("stream_options", at_body("stream_options", "extra fields not permitted", "value_error.extra")),
    ("max_completion_tokens", at_body("max_completion_tokens", NOT_PERMITTED, "extra_forbidden", input=100)),
    (
        "parallel_tool_calls",
        {"object": "error", "message": at_body("parallel_tool_calls", NOT_PERMITTED, "extra_forbidden")},
    ),
    (
        "stream_options",
        reported(
            "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), 'msg': 'Extra inputs are not permitted',"
            " 'input': {'include_usage': True}}]",
            code=400,
            param=None,
        ),
    ),
    ("stream_options", reported('{"detail":[{"loc":["body","stream_options"],"msg":"extra fields not permitted"}]}')),
    ("developer", at_body("messages.0.role", "Input should be 'system', 'user'", "literal_error", input="developer")),
    # Others.
    ("stream_options", 'json: unknown field "stream_options"'),
    ("stream_options", "unknown field `stream_options`, expected one of `model`, `messages`, `max_tokens`"),
    (
        "stream_options",
        [{"error": reported('Unknown name "stream_options": Cannot find field.', status="INVALID_ARGUMENT")}],
    ),
    ("parallel_tool_calls", reported("property 'parallel_tool_calls' is unsupported")),
    ("parallel_tool_calls", reported("parallel_tool_calls is not supported by this model")),
    ("stream_options", reported("Additional properties are not allowed ('stream_options' was unexpected)")),
    ("stream_options", reported("create() got an unexpected keyword argument 'stream_options'")),
    ("stream_options", reported("stream_options: extraneous key [stream_options] is not permitted")),
    (
        "reasoning_effort",
        {
            "code": "Client specified an invalid argument",
            "error": "Model m does not support parameter reasoningEffort.",
        },
    ),
    ("max_tokens", {"errors": ["max_tokens: unknown parameter"]}),
    ("developer", reported("Unexpected role developer")),
    ("system", reported("System role not supported")),
    ("developer", reported("'developer' is not one of ['system', 'assistant', 'user', 'tool'] - 'messages.0.role'")),
]
NOT_NAMED: list[object] = [
    reported(
        "max_tokens is too large: 100000. This model supports at most 4096 completion tokens.", param="max_tokens"
    ),
    reported("Invalid 'max_tokens': integer above maximum value", param="max_tokens", code="integer_above_max_value"),
    reported("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
    reported("max_tokens: 99999 > 8192, which is the maximum allowed number of output tokens"),
    at_body("max_tokens", "Input should be less than or equal to 4096", "less_than_equal"),
    reported("'max_tokens' : value must be at most 8192"),
    reported("Unsupported parameter: 'temperature' is not supported with this model.", param="temperature"),
    reported("unknown field `foo`, expected one of `model`, `max_tokens`, `stream_options`, `reasoning_effort`"),
    reported(
        'Unrecognized field "foo", not marked as ignorable (3 known properties: "max_tokens", "stream_options"])'
    ),
    reported("Unknown parameter: foo. Supported parameters: stream_options, max_tokens"),
    reported("Invalid schema for function 'f': 'max_tokens' is not supported", param="tools[0].function.parameters"),
    at_body("tools.0.function.parameters.max_tokens", NOT_PERMITTED, "extra_forbidden"),
    reported("Unexpected role 'system' after role 'user'"),
    reported("System message must be at the beginning."),
    reported("the system is not available"),
    reported("extra fields not permitted"),
    reported("tools are not supported by this model"),
    {},
    None,
    5,
    [],
    "bad request",
]


@pytest.mark.parametrize(("name", "refusal"), NAMED, ids=range(len(NAMED)))
def test_a_refusal_names_one_field(name: str, refusal: object) -> None:
    assert [field.name for field in named_fields(refusal, OPENAI_FIELDS)] == [name]


@pytest.mark.parametrize("refusal", NOT_NAMED, ids=range(len(NOT_NAMED)))
def test_a_complaint_about_a_value_or_another_field_names_none(refusal: object) -> None:
    assert named_fields(refusal, OPENAI_FIELDS) == {}


def test_a_report_may_name_several_fields() -> None:
    refusal = {
        "detail": [
            *at_body("stream_options", NOT_PERMITTED, "extra_forbidden")["detail"],
            *at_body("reasoning_effort", NOT_PERMITTED, "extra_forbidden")["detail"],
        ]
    }
    assert {field.name for field in named_fields(refusal, OPENAI_FIELDS)} == {"stream_options", "reasoning_effort"}


@pytest.mark.parametrize(
    ("refusal", "one_value"),
    [
        (reported("Unsupported parameter: 'reasoning_effort' is not supported with this model."), False),
        (reported("Unsupported value: 'reasoning_effort' does not support 'minimal' with this model."), True),
        (reported("bad", param="reasoning_effort", code="unsupported_value"), True),
        (at_body("reasoning_effort", "Input should be 'low', 'medium' or 'high'", "literal_error"), True),
        (at_body("reasoning_effort", NOT_PERMITTED, "extra_forbidden"), False),
    ],
)
def test_a_refusal_may_be_about_one_value_of_a_field(refusal: object, one_value: bool) -> None:
    assert list(named_fields(refusal, OPENAI_FIELDS).values()) == [one_value]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("thinking", "adaptive thinking is not supported on this model"),
        ("thinking", "thinking.type: Input should be 'enabled' or 'disabled'"),
        ("effort", "This model does not support the effort parameter."),
        ("effort", "output_config.effort: Input should be 'low', 'medium' or 'high'"),
        ("output_config", "output_config: Extra inputs are not permitted"),
        ("disable_parallel_tool_use", "tool_choice.disable_parallel_tool_use: Extra inputs are not permitted"),
    ],
)
def test_anthropics_refusals(name: str, message: str) -> None:
    refusal = {"type": "error", "error": reported(message)}
    named = named_fields(refusal, ANTHROPIC_FIELDS)
    assert [field.name for field in named if not field.is_form] == [name]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("adaptive", "adaptive thinking is not supported on this model"),
        ("adaptive", "thinking.type: Input should be 'enabled' or 'disabled'"),
        (
            "adaptive",
            "thinking: Input tag 'adaptive' found using 'type' does not match any of the expected tags: "
            "'disabled', 'enabled'",
        ),
        (
            "enabled",
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and '
            '"output_config.effort" to control thinking behavior.',
        ),
        ("enabled", "thinking.type: use adaptive"),
        (None, "thinking.budget_tokens: Input should be greater than or equal to 1024"),
        (None, "Expected `thinking` or `redacted_thinking`, but found `tool_use`. Thinking is enabled."),
    ],
)
def test_a_form_of_thinking_may_be_refused(form: str | None, message: str) -> None:
    refusal = {"type": "error", "error": reported(message)}
    forms = [field for field in ANTHROPIC_FIELDS if field.is_form]
    assert [field.name for field in named_fields(refusal, forms)] == ([form] if form else [])


@pytest.mark.parametrize(
    ("message", "one_value"),
    [
        ('"llama3" does not support thinking', False),
        ('think value "xhigh" is not supported for this model', True),
        ('invalid think value: "low" (must be "high", "medium", "low", true, or false)', True),
    ],
)
def test_ollamas_refusals(message: str, one_value: bool) -> None:
    assert list(named_fields({"error": message}, OLLAMA_FIELDS).values()) == [one_value]
