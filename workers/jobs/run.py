"""One run of a stream's generation: what all calls of providers for it share."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from shared.errors import ProviderError
from shared.hooks import HooksLike
from shared.protocol.ledger import Outcome as CallOutcome
from shared.schemas import ChatRequest
from workers.jobs.answer_filter import AnswerFilter
from workers.jobs.answer_so_far import AnswerSoFar, Continuation
from workers.jobs.generation_log import GenerationLog
from workers.jobs.stored_answers import StoredAnswer, stored_answer
from workers.providers.endpoint import ApiKey
from workers.writing.draft import HeldBack
from workers.writing.writer import StreamWriter

logger = logging.getLogger("workers.jobs.attempts")


@dataclass(slots=True)
class Run:
    """``fields``: the claimed state; ``readable``: number of events in the log. ``stored``: the answer that goes on
    at its provider; at first, one of an earlier attempt. ``counted``: targets whose breakers have counted a failure
    of this request: it counts once for each. ``has_lane``: the stream holds a slot that another call would free.
    ``ignored``: paths of fields without effect at any provider.

    ``answer``: the output so far; None if it is never continued. ``continuation``: the text that further calls go on
    with. ``output_before``: the writer's output when the last call broke off. ``is_discarding``: the stream has
    been cancelled, and its call is read for its usage alone. ``hooks``: those of the operator; ``filter``: of the
    latest call, if they watch it."""

    writer: StreamWriter
    log: GenerationLog
    fields: Mapping[str, bytes]
    readable: int = 0
    stored: StoredAnswer | None = None
    counted: set[str] = field(default_factory=set)
    has_lane: bool = False
    ignored: tuple[str, ...] = ()
    answer: AnswerSoFar | None = None
    continuation: Continuation | None = None
    output_before: int = 0
    is_discarding: bool = False
    hooks: HooksLike | None = None
    filter: AnswerFilter | None = None

    def __post_init__(self) -> None:
        self.has_lane = "lane" in self.fields
        self.stored = stored_answer(self.fields)

    @property
    def resumes(self) -> bool:
        """True if the answer of an earlier attempt may be continued."""
        return self.fields.get("may_resume") == b"1"

    @property
    def stream_id(self) -> str:
        return self.writer.holder.stream_id

    @property
    def has_output(self) -> bool:
        """True once the provider has sent a part of its answer, or of its continuation."""
        return self.writer.draft.output_count > self.output_before

    @property
    def prefix(self) -> str | None:
        """Hash of what requests with the same prompt cache have in common."""
        return self.fields.get("prefix", b"").decode() or None

    @property
    def is_least_busy(self) -> bool:
        return self.fields.get("routing") == b"least_busy"

    def candidates(self, request: ChatRequest) -> tuple[list[ChatRequest], list[ChatRequest]]:
        """Return the request for each of its targets, and for each of its fallbacks."""
        count = max(1, len(self.fields.get("lanes", b"").split()))
        candidates = list(_candidates(request))
        return candidates[:count], candidates[count:]

    def end_call(self, failure: CallOutcome, held: HeldBack | None = None) -> None:
        """Add the open call to the ledger, if there is one; see :meth:`Draft.end_call`."""
        self.writer.draft.end_call(failure, held)
        self.writer.keep_ledger()

    def log_failure(self, error: ProviderError, request: ChatRequest, key: ApiKey | None = None) -> None:
        line = {
            "stream_id": self.stream_id,
            "provider": request.provider,
            "model": request.model,
            "code": error.code,
            "detail": error.detail or error.summary,
            **({"key": key.id} if key is not None else {}),
        }
        logger.warning("provider call failed", extra=line)


def target_of(request: ChatRequest) -> str:
    """Return ``provider/model``."""
    return f"{request.provider}/{request.model}"


def _candidates(request: ChatRequest) -> Iterator[ChatRequest]:
    """Yield the request for its own model, then for each of its ``fallbacks``: ``provider/model``."""
    alone = request if request.fallbacks is None else request.model_copy(update={"fallbacks": None})
    yield alone
    for fallback in request.fallbacks or ():
        provider, _, model = fallback.partition("/")
        yield alone.model_copy(update={"provider": provider, "model": model})
