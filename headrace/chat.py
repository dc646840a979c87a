"""The command ``headrace chat``: one question, its answer on stdout, resumed over broken connections."""

import asyncio
import os
import signal
import sys

import httpx2

from headrace.backoff import BackoffExpired
from headrace.printer import note
from headrace.resuming_reader import ChatFailed, Question, ResumingReader

#: A gateway sends a heartbeat every 15 s; a connection without data for much longer is dead.
TIMEOUT = httpx2.Timeout(10, read=60)


async def chat(question: Question) -> int:
    """Print the answer and return the exit code: 0, 1 after an error, 130 after Ctrl-C."""
    async with httpx2.AsyncClient(timeout=TIMEOUT, headers=question.headers) as client:
        reader = ResumingReader(question, client)
        reading = asyncio.ensure_future(reader.read())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, reading.cancel)
        try:
            return await reading
        except (ChatFailed, BackoffExpired) as error:
            note(f"error: {error}")
            return 1
        except asyncio.CancelledError:
            exit_code = 128 + signal.SIGINT
        except BrokenPipeError:  # the reader of our output has exited
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            exit_code = 128 + signal.SIGPIPE
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C does not wait for the gateway
        await reader.cancel()
        return exit_code
