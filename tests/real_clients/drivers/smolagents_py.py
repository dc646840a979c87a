"""The tool-calling agent of smolagents, with its model for OpenAI's servers and, over LiteLLM, for Anthropic's. A
tool's image goes to the model by a step callback, as its documentation shows. It can end an agent between two steps,
but cannot cancel a running request."""

import json

from PIL import Image
from smolagents import LiteLLMModel, OpenAIModel, ToolCallingAgent, tool
from task import ANTHROPIC_URL, OPENAI_URL, SCHEMA, TASK, finish, run
from task import append as append_line

PROMPT = [{"role": "user", "content": [{"type": "text", "text": TASK.prompt}]}]
SEEN = []


def model():
    if TASK.api == "messages":
        return LiteLLMModel(f"anthropic/{TASK.model}", api_base=ANTHROPIC_URL, api_key="none", max_retries=0)
    return OpenAIModel(TASK.model, api_base=OPENAI_URL, api_key="none", client_kwargs={"max_retries": 0})


@tool
def append(line: str) -> str:
    """Append a line to the file.

    Args:
        line: The line.
    """
    return append_line(line)


@tool
def look(path: str) -> str:
    """Read an image.

    Args:
        path: The path of the image.
    """
    SEEN.append(Image.open(path))
    return "looked"


def show(step, agent):
    """Put the images of this step into its observations."""
    if SEEN:
        step.observations_images = [image.copy() for image in SEEN]
        SEEN.clear()


def agent():
    running = ToolCallingAgent(tools=[append, look], model=model(), step_callbacks=[show], verbosity_level=0)
    finish(text=running.run(TASK.prompt))


def text():
    finish(text="".join(part.content or "" for part in model().generate_stream(PROMPT)))


def structured():
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    finish(parsed=json.loads(model().generate(PROMPT, response_format=form).content))


def usage():
    finish(cached=model().generate(PROMPT).raw.usage.prompt_tokens_details.cached_tokens)


run(text=text, tools=agent, image=agent, structured=structured, error=text, usage=usage)
