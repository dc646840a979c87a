"""Tracebacks of failed answers.

A traceback holds its frames, and those hold the bytes of the answer, up to the limit of one piece. An error that is a
variable of one of its own frames keeps all of that until the garbage collector runs.
"""


def forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error, its causes and its contexts, and separate it from them. What they hold is
    freed at once. Call it when nothing needs the traceback any more."""
    pending: list[BaseException | None] = [error]
    while pending:
        if (each := pending.pop()) is not None:
            pending += (each.__cause__, each.__context__)
            each.__traceback__ = each.__cause__ = each.__context__ = None
