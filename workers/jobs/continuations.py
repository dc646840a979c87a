"""Continues an answer with another call, if its provider broke off (``on_provider_lost: continue``).

Only text is continued: it goes to a target that goes on with a given text, as its configuration says. Reasoning does
not. An answer with a tool call, a refusal, a fixed form (JSON) or the output of a provider's own tool ends with the
error, and so does one that is too short.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from msgspec import UNSET

from shared.configuration.configuration import Configuration
from shared.configuration.entries import ProviderEntry
from shared.errors import ProviderError
from shared.protocol import events
from shared.schemas import ChatRequest
from workers import metrics
from workers.jobs.answer_so_far import AnswerSoFar, Continuation
from workers.jobs.prefixed_request import has_fixed_form, with_prefix
from workers.jobs.run import Run, logger, target_of
from workers.jobs.seam import Seam
from workers.providers.openai_repairs import is_mistral
from workers.providers.refused_fields import unsupported

FIELD: Final = "on_provider_lost"
#: Failures in mid-answer after which another call may go on.
_BROKEN_OFF: Final = frozenset(
    {
        *("upstream_truncated", "provider_unreachable", "provider_unavailable", "provider_rate_limited"),
        *("provider_idle_timeout", "provider_connect_timeout"),
    }
)
MOST_CONTINUATIONS: Final = 3
#: A shorter text may well occur twice in a row, so that an answer that begins anew could not be recognised.
SHORTEST: Final = 8


class Continuations:
    """One instance serves all jobs of a worker."""

    def __init__(self, configuration: Configuration) -> None:
        self._providers = configuration.providers

    def prepare(self, request: ChatRequest, run: Run) -> None:
        """Keep the answer of a run if it may be continued. If it cannot be, the field has no effect and is named.
        Raises :class:`ProviderError` if the request refuses that."""
        if request.on_provider_lost != "continue" or request.only_count:
            return
        if run.hooks is None and self._can_continue(request, run):  # a watch keeps text of its own
            run.answer = AnswerSoFar()
        elif request.unsupported_fields == "refuse":
            raise unsupported(request.provider or "", FIELD)
        else:
            run.ignored = (*run.ignored, FIELD)

    def next_groups(
        self, groups: Sequence[Sequence[ChatRequest]], run: Run, error: ProviderError
    ) -> list[list[ChatRequest]]:
        """Return the requests that go on with an answer, in the groups in which they are tried: the target that broke
        off first, then the others. Nothing if the answer cannot be continued."""
        answer = run.answer
        if answer is None or not run.has_output or error.code not in _BROKEN_OFF or not answer.is_text:
            return []
        text = answer.text
        prefix = text.rstrip()
        if answer.continuations >= MOST_CONTINUATIONS or len(prefix.lstrip()) < SHORTEST:
            return []
        usage = run.writer.draft.usage_by_target
        broken_off = usage.of_call(answer.input_counts, answer.output)
        used = usage.sum_with(broken_off).output_tokens
        lost = dict[str, tuple[str, ...]]()
        prefixed = [
            [made for request in group if (made := self._prefixed(request, prefix, used, lost)) is not None]
            for group in _latest_first(groups, "/".join(usage.target))
        ]
        run.continuation = Continuation(text, answer.text_deltas, answer.output, broken_off, lost)
        run.output_before = run.writer.draft.output_count
        return [group for group in prefixed if group]

    def seam(self, request: ChatRequest, run: Run) -> Seam | None:
        """Return the join of one call. None: the call begins the answer."""
        if run.continuation is None:
            return None
        return Seam(
            request,
            run.continuation.text,
            repeats=repeats_prefix(self._providers[request.provider or ""]),
            ignored=run.continuation.lost.get(target_of(request), ()),
        )

    def _can_continue(self, request: ChatRequest, run: Run) -> bool:
        """Return True if a target continues, and the answer begins with a message of its own."""
        if has_fixed_form(request) or request.messages[-1].role == "assistant":
            return False
        targets, fallbacks = run.candidates(request)
        return any(self._continues(candidate) for candidate in (*targets, *fallbacks))

    def _continues(self, request: ChatRequest) -> bool:
        entry = self._providers.get(request.provider or "")
        return entry is not None and entry.continues_for(request.model) is not None

    def _prefixed(
        self, request: ChatRequest, prefix: str, used: int, lost: dict[str, tuple[str, ...]]
    ) -> ChatRequest | None:
        """Return the request with the text so far; None if the target does not go on with it, or if the request
        refuses to lose a field there."""
        entry = self._providers.get(request.provider or "")
        way = entry.continues_for(request.model) if entry is not None else None
        if entry is None or way is None:
            return None
        made, paths = with_prefix(request, way, entry.family, prefix, used)
        lost[target_of(request)] = paths
        return None if paths and request.unsupported_fields == "refuse" else made


def repeats_prefix(entry: ProviderEntry) -> bool:
    """Return True if a continuation begins with the given text once more."""
    if entry.quirks.repeats_prefix is not None:
        return entry.quirks.repeats_prefix
    return entry.continues == "prefix" and is_mistral(urlsplit(entry.base_url or "").hostname or "")


def join(seam: Seam, run: Run) -> list[events.Continued]:
    """Note that the output of another call joins the answer. Return the event that names it; nothing if the call
    begins the answer."""
    continuation, answer = run.continuation, run.answer
    if continuation is None or answer is None:
        return []
    provider, model = seam.request.provider or "", seam.request.model
    draft = run.writer.draft
    broken_off = "/".join(draft.usage_by_target.target)
    line = {"stream_id": run.stream_id, "broken_off": broken_off, "target": target_of(seam.request)}
    logger.info("answer continued", extra={**line, "characters": len(continuation.text)})
    metrics.CONTINUATIONS.labels(provider).inc()
    characters = len(continuation.text.rstrip())
    draft.go_on((provider, model), continuation.broken_off, continuation.output, characters, seam.input_counts)
    answer.continuations += 1
    answer.input_counts = seam.input_counts
    ignored = list(seam.ignored) or UNSET
    return [events.Continued(provider, model, continuation.token_index, len(continuation.text), ignored)]


def _latest_first(groups: Sequence[Sequence[ChatRequest]], latest: str) -> list[list[ChatRequest]]:
    """Return the groups with the latest target at their beginning."""
    first = [request for group in groups for request in group if target_of(request) == latest][:1]
    others = [[request for request in group if target_of(request) != latest] for group in groups]
    return [[*first, *others[0]], *others[1:]]
