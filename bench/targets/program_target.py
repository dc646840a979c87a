"""Base of the targets that are one program."""

from collections.abc import Mapping, Sequence

from bench.targets.program import Program


class ProgramTarget:
    """Target whose only process is ``program``. A subclass adds how it is started and asked."""

    def __init__(self) -> None:
        self.program = Program()

    @property
    def port(self) -> int:
        return self.program.port

    @property
    def processes(self) -> Mapping[str, Sequence[int]]:
        return {"app": [self.program.pid]}

    async def stop(self) -> None:
        await self.program.stop()
