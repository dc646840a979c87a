"""A web server for pages of other sites, and the attempts that these pages make on a gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.ports import free_port

#: Attempts of a page, each in its own function of ``url``, ``stream`` (the id of a running stream) and ``chat`` (a
#: body). Each returns or resolves with the text that the page could read, or with "" if there was none.
ATTEMPTS = """
const text = {method: "POST", headers: {"Content-Type": "text/plain"}, body: chat};
const quietly = (promise) => promise.catch(() => "");
const loaded = (tag, attributes) => new Promise((resolve) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.onload = () => resolve("");
  element.onerror = () => resolve("");
  document.body.append(element);
});
const content = (of) => { try { return of().body.innerText; } catch { return ""; } };
const framed = (path) => new Promise((resolve) => {
  const frame = Object.assign(document.createElement("iframe"), {src: url + path});
  frame.onload = () => resolve(content(() => frame.contentDocument));
  document.body.append(frame);
});
const form = (path, body) => new Promise((resolve) => {
  const [name, value] = body.split(/=(.*)/s);
  const target = `frame of ${path}`;
  const frame = Object.assign(document.createElement("iframe"), {name: target});
  const form = Object.assign(document.createElement("form"),
    {method: "POST", enctype: "text/plain", action: url + path, target});
  form.append(Object.assign(document.createElement("input"), {name, value}));
  document.body.append(frame, form);
  frame.onload = () => resolve(content(() => frame.contentDocument));
  form.submit();
});
const events = (path) => new Promise((resolve) => {
  const source = new EventSource(url + path);
  const end = (value) => { source.close(); resolve(value); };
  source.addEventListener("token", (event) => end(event.data));
  source.onerror = () => end("");
});
const opened = (path) => new Promise((resolve) => {
  const tab = window.open(url + path);
  setTimeout(() => { const read = content(() => tab.document); tab?.close(); resolve(read); }, 500);
});
return {
  form: () => form("/chat", chat),
  cancelForm: () => form(`/chat/${stream}/cancel`, "a=b"),
  opsCancelForm: () => form(`/ops/streams/${stream}/cancel`, "a=b"),
  opaque: () => quietly(fetch(url + "/chat", {...text, mode: "no-cors"}).then((answer) => answer.text())),
  opaqueStream: () => quietly(fetch(url + "/v1/responses", {...text, mode: "no-cors"}).then((a) => a.text())),
  fetchText: () => quietly(fetch(url + "/chat/stream", text).then((answer) => answer.text())),
  fetchJson: () => quietly(fetch(url + "/chat",
    {...text, headers: {"Content-Type": "application/json"}}).then((answer) => answer.text())),
  beacon: async () => { navigator.sendBeacon(url + "/chat", chat); return ""; },
  list: () => quietly(fetch(url + "/chat").then((answer) => answer.text())),
  opaqueList: () => quietly(fetch(url + "/chat", {mode: "no-cors"}).then((answer) => answer.text())),
  eventSource: () => events(`/chat/stream/${stream}`),
  image: () => loaded("img", {src: `${url}/chat/stream/${stream}`}),
  script: () => loaded("script", {src: `${url}/chat`}),
  module: () => loaded("script", {type: "module", src: `${url}/v1/models`}),
  stylesheet: () => loaded("link", {rel: "stylesheet", href: `${url}/openapi.json`}),
  frame: () => framed("/"),
  frameList: () => framed("/chat"),
  window: () => opened("/chat"),
};
"""


@asynccontextmanager
async def other_site() -> AsyncIterator[int]:
    """Serve an empty page on all names of this machine, and yield the port."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>other</title><body></body>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield port
    finally:
        await runner.cleanup()
