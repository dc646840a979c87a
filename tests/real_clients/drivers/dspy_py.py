"""DSPy: its language model for OpenAI's servers (both APIs) and Anthropic's, all with
``/v1`` in their address, and its agent with native tool calls."""

import asyncio

import dspy
from task import OPENAI_URL as URL
from task import TASK, append, cancelled, finish, run


def model():
    options = {"api_key": "none", "cache": False, "num_retries": 0}
    if TASK.api == "messages":
        return dspy.LM(f"anthropic/{TASK.model}", api_base=URL, **options)
    return dspy.LM(f"openai/{TASK.model}", api_base=URL, model_type=TASK.api, **options)


LM = model()
dspy.configure(lm=LM, adapter=dspy.JSONAdapter())


def agent():
    finish(text=dspy.ReActV2("question -> answer", tools=[append])(question=TASK.prompt).answer)


def _words(answer):
    first = answer[0]
    return first["text"] if isinstance(first, dict) else first


def text():
    finish(text=_words(LM(TASK.prompt)))


def structured():
    finish(parsed={"n": dspy.Predict("question -> n: int")(question=TASK.prompt).n})


def usage():
    LM(TASK.prompt)
    used = LM.history[-1]["usage"]
    details = used.get("prompt_tokens_details") or used.get("input_tokens_details") or {}
    finish(cached=dict(details).get("cached_tokens", used.get("cache_read_input_tokens")))


async def _cancel():
    program = dspy.streamify(dspy.Predict("question -> answer"))
    parts = program(question=TASK.prompt)
    async for _ in parts:
        break
    await parts.aclose()
    await asyncio.to_thread(cancelled)


def cancel():
    asyncio.run(_cancel())


run(text=text, tools=agent, structured=structured, cancel=cancel, error=text, usage=usage)
