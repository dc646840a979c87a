"""AG-UI's ``AgentCapabilities`` of a gateway. Members that depend on the model are left out, as the format has it."""

from typing import Any, Final

from shared.version import VERSION

CAPABILITIES: Final[dict[str, Any]] = {
    "identity": {"name": "Headrace", "type": "headrace", "version": VERSION},
    "transport": {"streaming": True, "websocket": False, "httpBinary": False, "resumable": True},
    "tools": {"supported": True, "items": [], "parallelCalls": True, "clientProvided": True},
    "output": {"structuredOutput": True},
    "state": {"snapshots": False, "deltas": False, "memory": False, "persistentState": False},
    "multiAgent": {"supported": False},
    "reasoning": {"supported": True, "streaming": True},
    "multimodal": {"input": {"image": True, "pdf": True}, "output": {"image": False, "audio": False}},
    "execution": {"codeExecution": False},
    "humanInTheLoop": {"supported": False, "interrupts": False},
    "custom": {
        "resume": {
            "cursor": "Last-Event-ID",
            "run": "/ag-ui/runs/{runId}?threadId={threadId}",
            "cancel": "/ag-ui/runs/{runId}/cancel?threadId={threadId}",
        },
        "events": ["queued", "waiting", "continued", "source", "usage"],
    },
}
