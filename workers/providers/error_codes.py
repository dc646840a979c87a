"""Error codes of providers that are passed on. All others stay in the provider's response: they are free text."""

from typing import Final

from shared.provider_codes import IMAGE_CODES

CONTEXT_LENGTH_EXCEEDED: Final = "context_length_exceeded"

#: Codes about the request itself. SDKs and applications branch on them, so clients get them.
PUBLIC_CODES: Final = frozenset(
    {
        CONTEXT_LENGTH_EXCEEDED,
        # Parameters.
        "array_above_max_length",
        "array_below_min_length",
        "decimal_above_max_value",
        "decimal_below_min_value",
        "integer_above_max_value",
        "integer_below_min_value",
        "invalid_function_parameters",
        "invalid_json_schema",
        "invalid_type",
        "invalid_value",
        "missing_required_parameter",
        "string_above_max_length",
        "string_below_min_length",
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
        *IMAGE_CODES,
        # Content.
        "content_filter",
        "content_policy_violation",
        "invalid_prompt",
        "request_too_large",
        # Model and rate.
        "model_not_found",
        "rate_limit_exceeded",
    }
)

#: Codes about the operator's account or the provider's state: for the log alone.
OPERATOR_CODES: Final = frozenset(
    {
        "account_deactivated",
        "api_error",
        "authentication_error",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_quota",
        "invalid_api_key",
        "ip_not_authorized",
        "not_found_error",
        "organization_deactivated",
        "overloaded_error",
        "permission_error",
        "rate_limit_error",
        "server_error",
        "timeout_error",
        "unsupported_country_region_territory",
    }
)
