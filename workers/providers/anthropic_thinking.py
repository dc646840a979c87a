"""Thinking of a canonical request in Anthropic's form.

Older models think within a budget (``enabled``), later ones as much as they need (``adaptive``), and each refuses the
other form. ``adaptive`` is tried first, unless the client set a budget; a refusal changes the form.
"""

from typing import Any, Final

from shared.schemas import ChatRequest, NamedToolChoice
from workers.providers.anthropic_messages import has_signed_thinking

#: The API accepts no smaller budget.
_SMALLEST_BUDGET: Final = 1024
_BUDGETS: Final = {"minimal": 1024, "low": 4096, "medium": 12_288, "high": 24_576, "xhigh": 32_768, "max": 65_536}
#: Part of the output's limit that a budget may take.
_LARGEST_PART: Final = 0.75
Body = dict[str, Any]


def may_think(request: ChatRequest) -> bool:
    """Return True if thinking can be enabled. After a tool's result the API requires the signed thinking before it.
    With a forced tool there is no thinking."""
    is_wanted = request.reasoning_effort not in {None, "none"} or request.reasoning_tokens is not None
    is_free = not isinstance(request.tool_choice, NamedToolChoice) and request.tool_choice != "required"
    follows_a_tool = request.messages[-1].role == "tool" or bool(request.messages[-1].tool_calls)
    return is_wanted and is_free and (not follows_a_tool or has_signed_thinking(request.messages))


def thinking_of(request: ChatRequest, max_tokens: int) -> Body:
    """Return the fields ``thinking`` and ``output_config`` of a request that may think."""
    effort = "low" if request.reasoning_effort == "minimal" else request.reasoning_effort
    config: Body = {"output_config": {"effort": effort}} if effort not in {None, "none"} else {}
    if request.reasoning_tokens is not None and (thinking := _within_budget(request.reasoning_tokens, max_tokens)):
        return {"thinking": thinking, **config}
    return {"thinking": {"type": "adaptive", "display": "summarized"}, **config}


def change_form(body: Body, form: str) -> None:
    """Change the form of thinking in a request to ``form``. The new request has the same budget or effort, as nearly
    as the form allows."""
    thinking, config = body["thinking"], body.get("output_config")
    config = config if isinstance(config, dict) else {}
    if form == "adaptive":
        display = {"display": thinking["display"]} if "display" in thinking else {}
        body["thinking"] = {"type": "adaptive", **display}
        if "effort" not in config:
            body["output_config"] = {**config, "effort": _effort(thinking.get("budget_tokens"))}
        return
    budget = _BUDGETS.get(str(config.get("effort", "high")), _BUDGETS["high"])
    limit = body.get("max_tokens")
    enabled = _within_budget(budget, limit if isinstance(limit, int) else 0)
    body.pop("thinking")
    if enabled is not None:
        display = {"display": thinking["display"]} if thinking.get("display") == "omitted" else {}
        body["thinking"] = enabled | display
    # Models with budgets do not accept an effort.
    if rest := {name: value for name, value in config.items() if name != "effort"}:
        body["output_config"] = rest
    else:
        body.pop("output_config", None)


def _within_budget(tokens: int, max_tokens: int) -> Body | None:
    budget = min(max(tokens, _SMALLEST_BUDGET), int(max_tokens * _LARGEST_PART))
    return {"type": "enabled", "budget_tokens": budget} if budget >= _SMALLEST_BUDGET else None


def _effort(budget: Any) -> str:
    if not isinstance(budget, int):
        return "medium"
    return next((effort for effort, most in _BUDGETS.items() if effort != "minimal" and budget <= most), "max")
