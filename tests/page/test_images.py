"""Images of a question: chosen, pasted and dropped; large ones are made smaller, and refused ones are named."""

import asyncio
import base64
import struct
import zlib
from pathlib import Path
from typing import Any

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.fakes.answer import Answer
from tests.page.chat_page import ENDED, Page
from tests.system import System

_INPUT = "#composer input[type=file]"
_ATTACHED = "return [...document.querySelectorAll('#composer .attached img')].map((image) => image.alt)"
_NOTE = "return document.querySelector('#composer .attach-note').textContent"
_SHOWN = """
return [...document.querySelectorAll(".user")].filter((message) => message.checkVisibility()).map((message) => [
  message.querySelector(".bubble")?.textContent ?? "",
  [...message.querySelectorAll(".images img")].map(({ alt, naturalWidth }) => [alt, naturalWidth > 0]),
]);
"""
#: Hands files to the page by an event, as a paste or a drop does. `arguments`: event, target, [[name, type, base64]].
_HAND = """
const [name, target, files] = arguments;
const data = new DataTransfer();
for (const [name, type, bytes] of files) {
  data.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name, { type }));
}
const options = { bubbles: true, cancelable: true };
const event = name === "paste"
  ? new ClipboardEvent(name, { ...options, clipboardData: data })
  : new DragEvent(name, { ...options, dataTransfer: data });
return !document.querySelector(target).dispatchEvent(event);
"""
_SIZE = """
const done = arguments[arguments.length - 1];
const image = new Image();
image.onload = () => done([image.naturalWidth, image.naturalHeight]);
image.src = arguments[0];
"""


def png(width: int, height: int) -> bytes:
    """Return a picture of one colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x20\x90\xb0" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


async def choose(page: Page, folder: Path, **files: bytes) -> None:
    """Choose files in the dialog of the button. An underscore in a name stands for a dot."""
    paths = []
    for name, content in files.items():
        paths.append(folder / name.replace("_", "."))
        paths[-1].write_bytes(content)
    field = page.driver.find_element(By.CSS_SELECTOR, _INPUT)
    await asyncio.to_thread(field.send_keys, "\n".join(map(str, paths)))


async def hand(page: Page, event: str, target: str, *files: tuple[str, bytes]) -> bool:
    """Paste or drop files. Return True if the page has taken the event."""
    listed = [[name, "image/png", base64.b64encode(content).decode()] for name, content in files]
    return bool(await asyncio.to_thread(page.driver.execute_script, _HAND, event, target, listed))


async def until(page: Page, script: str, expected: Any) -> None:
    seen: Any = None

    async def is_met() -> bool:
        nonlocal seen
        seen = await page.script(script)
        return bool(seen == expected)

    try:
        await page.until(is_met)
    except TimeoutError:
        raise AssertionError(f"{script}: {seen}") from None


def parts(system: System, model: str) -> list[list[Any]]:
    """Return the parts of each user message of the last call of a model."""
    call = [call for call in system.fake.calls if call.model == model][-1]
    return [each["content"] for each in call.request["messages"] if each["role"] == "user"]


async def test_images_are_attached_shown_sent_and_edited(page: Page, system: System, tmp_path: Path) -> None:
    system.fake.play("seeing", *(Answer(deltas=[f"Seen {number}"]) for number in range(1, 5)))
    small = png(30, 20)
    await choose(page, tmp_path, chosen_png=small, large_png=png(3000, 1500))
    assert await hand(page, "paste", "#prompt", ("pasted.png", small))
    assert await hand(page, "drop", "#scroll", ("dropped.png", small))
    await until(page, f"{_ATTACHED}.sort()", ["chosen.png", "dropped.png", "large.png", "pasted.png"])
    await asyncio.to_thread(
        lambda: page.driver.find_element(By.CSS_SELECTOR, '[title="Remove pasted.png"]').send_keys(Keys.ENTER)
    )
    names = await page.script(_ATTACHED)
    assert sorted(names) == ["chosen.png", "dropped.png", "large.png"]
    await page.ask("What are these?", model="openai/seeing")
    assert await page.until_state(*ENDED) == "done"
    question = ["What are these?", [[name, True] for name in names]]
    await until(page, _SHOWN, [question])
    assert await page.script(_ATTACHED) == []

    ((*images, text),) = parts(system, "seeing")
    assert text == {"type": "text", "text": "What are these?"}
    urls = dict(zip(names, (image["image_url"]["url"] for image in images), strict=True))
    assert base64.b64decode(urls["chosen.png"].removeprefix("data:image/png;base64,")) == small
    assert urls["large.png"].startswith("data:image/jpeg;base64,")
    size = await asyncio.to_thread(page.driver.execute_async_script, _SIZE, urls["large.png"])
    assert size == [2048, 1024]

    await page.reload()
    await until(page, _SHOWN, [["What are these?", [["Attached image", True]] * 3]])
    await page.script("document.querySelector('.edit').click()")
    await until(page, "return document.querySelectorAll('.editor .attached img').length", 3)
    assert await hand(page, "drop", ".editor textarea", ("another.png", small))
    await until(page, "return document.querySelectorAll('.editor .attached img').length", 4)
    assert await page.script(_ATTACHED) == []  # the prompt has not taken it, too
    assert not await page.script("return document.querySelector('.dropping')")
    await page.script("[...document.querySelectorAll('.editor .remove')].at(-1).click()")
    await page.script("document.querySelector('.editor .remove').click()")
    await page.script("document.querySelector('.editor').requestSubmit()")
    await until(page, _SHOWN, [["What are these?", [["Attached image", True]] * 2]])
    assert await page.until_state(*ENDED) == "done"
    assert parts(system, "seeing") == [[*images[1:], text]]
    assert [
        entry for entry in await asyncio.to_thread(page.driver.get_log, "browser") if "Security" in str(entry)
    ] == []


async def test_what_cannot_be_attached_is_named_and_the_draft_says_what_it_has_lost(
    page: Page, system: System, tmp_path: Path
) -> None:
    await choose(page, tmp_path, notes_txt=b"no image", broken_png=b"no image either", good_png=png(4, 4))
    problems = (
        "notes.txt is not an image. Attach a PNG, JPEG, WebP or GIF file. "
        "broken.png cannot be read here. Attach a PNG, JPEG, WebP or GIF file."
    )
    await until(page, _NOTE, problems)
    assert await page.script(_ATTACHED) == ["good.png"]
    await hand(page, "drop", "#scroll", *((f"{number}.png", png(4, 4)) for number in range(9)))
    await until(page, _NOTE, "A question has at most 8 images; not attached: 7.png, 8.png.")
    await until(page, f"{_ATTACHED}.length", 8)

    await asyncio.to_thread(lambda: page.element("prompt").send_keys("Half a question"))
    await page.click("new-chat")  # the same draft
    assert len(await page.script(_ATTACHED)) == 8
    await page.reload()
    await until(page, "return document.getElementById('prompt').value", "Half a question")
    lost = ", ".join(["good.png", *(f"{number}.png" for number in range(7))])
    await until(page, _NOTE, f"Attach again: {lost}. A reload keeps only text.")
    assert await page.script(_ATTACHED) == []


async def test_an_image_needs_no_text_and_hostile_ones_are_only_named(
    page: Page, system: System, tmp_path: Path
) -> None:
    system.fake.play("seeing", Answer(deltas=["Seen"]))
    await choose(page, tmp_path, only_png=png(4, 4))
    await until(page, _ATTACHED, ["only.png"])
    await page.ask("", model="openai/seeing")
    assert await page.until_state(*ENDED) == "done"
    assert [part["type"] for part in parts(system, "seeing")[0]] == ["image_url"]
    chat = (await page.fragment()).removeprefix("chat=")
    urls = ["https://example.com/tracker.png", "data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImFsZXJ0KDEpIi8+"]
    content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    messages = [{"role": "user", "content": content}]
    await system.ended(await system.post("seeing", chat_id=chat, history="add", messages=messages))
    await page.reload()
    await until(page, "return document.querySelectorAll('.user').length", 2)
    sources = "return [...document.querySelectorAll('.user img')].map(({ src }) => src.slice(0, 11))"
    await until(page, sources, ["data:image/"] * 2)
    assert (await page.script(_SHOWN))[1][0] == "[image url]"
