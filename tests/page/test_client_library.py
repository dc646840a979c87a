"""The JavaScript client library and its React hook in a real browser."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome

from tests.clients.replay import expected, replaying, streams
from tests.conformance.node import NODE
from tests.fakes.answer import Answer
from tests.page.cutting_proxy import CuttingProxy
from tests.system import REPOSITORY, System

REACT_CHAT = REPOSITORY / "examples" / "react-chat" / "node_modules"
READ = """
const [ids, finish] = arguments;
(async () => {
  const { Headrace } = await import("/page/index.js");
  const client = new Headrace({ url: location.origin });
  const read = async (id) => {
    const stream = client.attach(id);
    const types = [];
    for await (const { type } of stream) types.push(type);
    return [stream.text, types.at(-1)];
  };
  return Promise.all(ids.map((id) => read(id).catch((error) => [String(error), error.code])));
})().then(finish, (error) => finish(String(error)));
"""


async def test_answers_that_are_cut_are_read_whole_in_a_browser(driver: Chrome) -> None:
    """Chromium has six connections to a server, so only some of the cuts are tried."""
    ids = [*streams()[5:100:19], *streams()[110::29]]  # the first ones are cut in their head, and wait for a second
    async with replaying() as replay:
        await asyncio.to_thread(driver.get, f"{replay.url}/page/")
        outcomes = await asyncio.to_thread(driver.execute_async_script, READ, ids)
        await asyncio.to_thread(driver.get, "about:blank")  # closes the connections
    assert outcomes == [[expected(stream_id), "done"] for stream_id in ids]


# --- the React hook

COMPONENT = """
import { createElement, StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Headrace } from "@headrace/client";
import { useHeadraceStream } from "@headrace/client/react";

const client = new Headrace({ url: location.origin });
function Chat({ stream }) {
  const answer = useHeadraceStream(client, stream);
  window.answer = answer;
  return createElement("p", null, answer.text);
}
window.mount = (stream = null) => {
  const root = createRoot(document.body.appendChild(document.createElement("div")));
  root.render(createElement(StrictMode, null, createElement(Chat, { stream })));
  window.unmount = () => root.unmount();
};
"""
BUILD = """
import { build } from "VITE/vite/dist/node/index.js";
const from = (name) => `VITE/${name}`;
const alias = [
  { find: /^@headrace\\/client$/, replacement: "LIBRARY/index.js" },
  { find: "@headrace/client/react", replacement: "LIBRARY/react.js" },
  { find: /^react$/, replacement: from("react/index.js") },
  { find: /^react-dom\\/client$/, replacement: from("react-dom/client.js") },
];
await build({
  configFile: false, root: ".", logLevel: "error", resolve: { alias },
  define: { "process.env.NODE_ENV": '"development"' },
  build: { lib: { entry: "component.js", formats: ["iife"], name: "Component", fileName: () => "built.js" } },
});
"""


def built(folder: Path) -> str:
    """Return a page with the hook as one script."""
    (folder / "component.js").write_text(COMPONENT)
    library = str(REPOSITORY / "clients" / "javascript" / "src")
    (folder / "build.mjs").write_text(BUILD.replace("VITE", str(REACT_CHAT)).replace("LIBRARY", library))
    done = subprocess.run([NODE, "build.mjs"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (folder / "dist" / "built.js").read_text()


async def test_the_hook_reads_an_answer_over_cuts_and_again_after_a_reload(
    driver: Chrome, system: System, tmp_path: Path
) -> None:
    script = await asyncio.to_thread(built, tmp_path)
    gate = asyncio.Event()
    words = ["one ", "two ", "three"]
    system.fake.play("hook", Answer(deltas=words, gate=gate, gate_after=2))

    async def js(source: str, *arguments: object) -> Any:
        return await asyncio.to_thread(driver.execute_script, source, *arguments)

    async def shows(text: str, status: str) -> None:
        shown: list[str] = []

        async def does_show() -> bool:
            shown[:] = await js(
                "const at = window.answer; return [at?.text, document.querySelector('p')?.textContent, at?.status]"
            )
            return shown == [text, text, status]

        try:
            await system.eventually(does_show)
        except AssertionError:
            assert shown == [text, text, status]

    async def open_page() -> None:
        await asyncio.to_thread(driver.get, f"{proxy.url}/healthz")
        await js("document.body.replaceChildren(); const script = arguments[0]; (0, eval)(script);", script)

    async with CuttingProxy(system.gateways[0].url) as proxy:
        await open_page()
        await js("window.mount()")
        await shows("", "idle")
        await js(
            "window.answer.start({ model: 'openai/hook', messages: [{ role: 'user', content: 'hi' }] })"
            ".then(({ id }) => { window.started = id; })"
        )
        await shows("one two ", "streaming")
        assert proxy.cut() > 0
        gate.set()
        await shows("one two three", "done")
        stream_id = await js("return window.started")
        await open_page()
        await js("window.mount(arguments[0])", stream_id)
        await shows("one two three", "done")
        await js("window.unmount()")
    assert len([call for call in system.fake.calls if call.model == "hook"]) == 1
