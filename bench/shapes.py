"""Definitions of all shapes of load."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from bench import figures
from bench.cancel_storm import CancelStorm
from bench.dialects import MixedDialects
from bench.figures import (
    CPU_OF_IN_PROCESS,
    CPU_OF_ONE_SERVER,
    CPU_OF_RESUMABLE,
    FIRST_TOKEN_ADDED,
    SPEED_OF_DIRECT,
    Versus,
)
from bench.idle import Idle
from bench.idle_system import Answers, IdleSystem
from bench.kept_answers import KeptAnswers
from bench.load import Load
from bench.resume_storm import ResumeStorm
from bench.stage import Stage, Values
from bench.viewers import Viewers


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape of load: its measurement, the figures that its table shows, and the comparisons."""

    name: str
    title: str
    measure: Callable[[Stage], Awaitable[Values]]
    figures: tuple[str, ...] = figures.LOAD
    versus: tuple[Versus, ...] = (CPU_OF_RESUMABLE, CPU_OF_IN_PROCESS, CPU_OF_ONE_SERVER, FIRST_TOKEN_ADDED)


_UNPACED: Final = (CPU_OF_RESUMABLE, CPU_OF_IN_PROCESS, SPEED_OF_DIRECT)
_FIRST: Final = (FIRST_TOKEN_ADDED,)
_KIB: Final = 1024

_ALL: Final = (
    Shape("1x50", "1 stream, 50 tokens/s", Load(1, 50, 0).measure),
    Shape("1x30", "1 stream, 30 tokens/s", Load(1, 30, 0).measure),
    Shape("100x30", "100 streams, 30 tokens/s", Load(100, 30, 1, long=True).measure),
    Shape("500x20", "500 streams, 20 tokens/s", Load(500, 20, 2, long=True).measure),
    Shape("1000x10", "1,000 streams, 10 tokens/s", Load(1000, 10, 3, long=True).measure),
    Shape("20x500", "20 streams, 500 tokens/s, so each token alone in a read", Load(20, 500, 0.5, long=True).measure),
    Shape(
        "arrivals-1000",
        "1,000 streams in 10 s, then 10 tokens/s",
        Load(1000, 10, 10, long=True).measure,
    ),
    Shape(
        "unpaced",
        "20 streams, 5,000 tokens each, unpaced, a send per token",
        Load(20, None, 0.1, tokens=5000).measure,
        figures.UNPACED,
        _UNPACED,
    ),
    Shape(
        "torrent",
        "20 streams, 20,000 tokens each, unpaced, 64 tokens in a send",
        Load(20, None, 0.1, tokens=20_000, per_send=64).measure,
        figures.UNPACED,
        _UNPACED,
    ),
    Shape(
        "answer-100k",
        "one answer of 100,000 tokens, unpaced",
        Load(1, None, 0, tokens=100_000).measure,
        figures.UNPACED,
        _UNPACED,
    ),
    Shape(
        "prompts-10k",
        "100 streams, 30 tokens/s, prompts of 10 KiB",
        Load(100, 30, 1, prompt_bytes=10 * _KIB).measure,
    ),
    Shape(
        "dialects",
        "100 streams, 30 tokens/s, five dialects",
        MixedDialects(Load(100, 30, 1)).measure,
    ),
    Shape(
        "first-token",
        "200 answers of one token, one after another",
        Load(200, None, 5, tokens=1).measure,
        figures.FIRST_TOKEN,
        _FIRST,
    ),
    Shape(
        "first-alone",
        "40 answers of one token, five a second",
        Load(40, None, 8, tokens=1).measure,
        figures.FIRST_TOKEN,
        _FIRST,
    ),
    Shape(
        "burst-100",
        "100 streams in 0.5 s, then 30 tokens/s",
        Load(100, 30, 0.5).measure,
        figures.FIRST_TOKEN,
        _FIRST,
    ),
    Shape(
        "burst-1000",
        "1,000 streams in 0.5 s, then 10 tokens/s",
        Load(1000, 10, 0.5).measure,
        figures.FIRST_TOKEN,
        _FIRST,
    ),
    Shape("nothing", "no streams", IdleSystem(30).measure, figures.IDLE_SYSTEM, ()),
    Shape(
        "answers",
        "300 answers of one token, 50 a second",
        Answers(300, 50).measure,
        figures.ANSWER,
        (),
    ),
    Shape(
        "kept", "answers of 500 tokens of prose, a minute after their end", KeptAnswers().measure, figures.KEPT, ()
    ),
    Shape("idle", "5,000 idle streams", Idle(5000, 20).measure, figures.IDLE, ()),
    Shape("viewers", "1 stream, 30 tokens/s, 1,000 viewers", Viewers(1000, 30, 3).measure, figures.VIEWERS, ()),
    Shape(
        "resume-storm",
        "1,000 live streams cut and resumed at once",
        ResumeStorm(1000, 2, 5).measure,
        figures.RESUME,
        (),
    ),
    Shape(
        "cancel-storm",
        "500 live streams cancelled at once",
        CancelStorm(500, 5, 3).measure,
        figures.CANCEL,
        (),
    ),
)
SHAPES: Final = {shape.name: shape for shape in _ALL}
