"""LangChain's agent on LangGraph, with OpenAI's and Anthropic's chat models."""

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from task import ANTHROPIC_URL, OPENAI_URL, SCHEMA, TASK, append, cancelled, finish, read, run


def model():
    if TASK.api == "messages":
        return ChatAnthropic(model=TASK.model, base_url=ANTHROPIC_URL, api_key="none", streaming=True)
    responses = TASK.api == "responses"
    return ChatOpenAI(
        model=TASK.model, base_url=OPENAI_URL, api_key="none", use_responses_api=responses, stream_usage=True
    )


@tool
def look(path: str) -> list:
    """Read an image."""
    return [{"type": "image", "base64": read(path)[1], "mime_type": "image/png"}]


def agent():
    answer = create_agent(model(), [tool(append), look]).invoke({"messages": [("user", TASK.prompt)]})
    finish(text=answer["messages"][-1].text)


def text():
    finish(text="".join(chunk.text for chunk in model().stream(TASK.prompt)))


def structured():
    finish(parsed=model().with_structured_output(SCHEMA, method="json_schema").invoke(TASK.prompt))


def usage():
    finish(cached=model().invoke(TASK.prompt).usage_metadata["input_token_details"]["cache_read"])


def cancel():
    chunks = model().stream(TASK.prompt)
    while not next(chunks).text:
        pass
    chunks.close()
    cancelled()


run(text=text, tools=agent, image=agent, structured=structured, cancel=cancel, error=text, usage=usage)
