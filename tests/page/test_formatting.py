"""Code has colours and formulas are drawn, each loaded on demand, under the strict Content-Security-Policy."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.answer import Answer
from tests.page.chat_page import ENDED, INSPECT, Page
from tests.page.test_docs import LISTENER
from tests.system import System

_LOADED = """
return performance.getEntriesByType("resource").map(({ name }) => name.split("/").at(-1))
  .filter((name) => /highlight_worker|temml|formula_renderer|formulas.css/.test(name)).sort();
"""
_BLOCKS = """
return Array.from(document.querySelectorAll("[data-testid=answer] .code"), (block) => {
  const code = block.querySelector("code");
  const spans = [...code.querySelectorAll("*")];
  return {
    text: code.textContent,
    kinds: [...new Set(spans.map(({ className }) => className))].sort(),
    tags: [...new Set(spans.map(({ tagName }) => tagName))],
    bar: block.querySelector(".bar").textContent,
  };
});
"""
_FORMULAS = """
return Array.from(document.querySelectorAll("[data-testid=answer] .formula"), (place) =>
  [place.querySelector("math") ? "math" : "source", place.textContent]);
"""
_UNDRAWN = """
const answer = document.querySelector("[data-testid=answer]");
const blocks = [...answer.children, ...answer.querySelector(".tail").children];
return blocks.filter((block) => block.className !== "tail" && !block.querySelector("math"))
  .map((block) => block.textContent);
"""
_UNKNOWN_LANGUAGES = """
const done = arguments[0];
const modules = [import("/page/vendor/highlight.min.js"), import("/page/highlight.js")];
Promise.all(modules).then(([{ default: hljs }, { LANGUAGES }]) =>
  done([...LANGUAGES].filter((name) => !hljs.getLanguage(name))));
"""
PYTHON = 'def f(x: int) -> str:  # "<b>"\n    return "</code><script>alert(1)</script>" * 2\n'


@pytest.fixture
async def watched(page: Page) -> AsyncIterator[Page]:
    """The page, with a list of the violations of its policy."""
    source = {"source": LISTENER}
    added = await asyncio.to_thread(page.driver.execute_cdp_cmd, "Page.addScriptToEvaluateOnNewDocument", source)
    await page.open()
    yield page
    assert await page.script("return window.violations") == []
    await asyncio.to_thread(page.driver.execute_cdp_cmd, "Page.removeScriptToEvaluateOnNewDocument", added)


async def until_blocks(page: Page, *kinds: set[str]) -> list[dict[str, Any]]:
    """Wait until the blocks of the answer have words of these kinds, and return them."""

    async def are_coloured() -> bool:
        shown = await page.script(_BLOCKS)
        return len(shown) == len(kinds) and all(set(b["kinds"]) >= k for b, k in zip(shown, kinds, strict=True))

    await page.until(are_coloured)
    blocks: list[dict[str, Any]] = await page.script(_BLOCKS)
    return blocks


async def test_code_gets_colours_once_it_is_complete(watched: Page, system: System) -> None:
    page = watched
    gate = asyncio.Event()
    pieces = ["```text\nplain\n```\n\n```python\n" + PYTHON, "```\n\nAfter\n\nthe end", ".\n\n```c\nint a;\n```"]
    system.fake.play("code", Answer(deltas=pieces, gate=gate, gate_after=1))
    await page.ask("Code", model="openai/code")
    await until_blocks(page, set(), set())
    await page.until_longer(len(pieces[0]) - 1)
    await asyncio.sleep(0.5)
    streaming = await page.script(_BLOCKS)
    assert [block["kinds"] for block in streaming] == [[], []]
    assert [block["bar"] for block in streaming] == ["textCopy", "python"]
    assert await page.script(_LOADED) == []
    gate.set()
    assert await page.until_state(*ENDED) == "done"
    blocks = await until_blocks(page, set(), {"keyword", "string", "comment", "number", "title"}, {"type"})
    assert [block["text"] for block in blocks] == ["plain\n", PYTHON, "int a;\n"]
    assert blocks[1]["tags"] == ["SPAN"]
    assert blocks[0]["kinds"] == []
    assert await page.script(_LOADED) == ["highlight_worker.js"]
    assert await asyncio.to_thread(page.driver.execute_async_script, _UNKNOWN_LANGUAGES) == []


async def test_a_block_on_which_the_library_hangs_delays_no_other(watched: Page, system: System) -> None:
    """The grammar of C needs half a minute for the first block; the page gives it up and stays usable."""
    page = watched
    slow, large = "a" * 60_000, f"let x = '{'a' * 80}';\n" * 1_100
    text = f"```c\n{slow}\n```\n\n```js\n{large}```\n\n```python\n{PYTHON}```\n"
    system.fake.play("slow", Answer(deltas=[text[at : at + 4_096] for at in range(0, len(text), 4_096)]))
    await page.ask("Code", model="openai/slow")
    assert await page.until_state(*ENDED) == "done"
    blocks = await until_blocks(page, set(), {"keyword"}, {"keyword"})
    assert [block["text"] for block in blocks] == [f"{slow}\n", large, PYTHON]
    assert blocks[0]["kinds"] == []


#: Texts with dollars and brackets that are no formulas.
TEXTS = (
    "It costs $5 or $10, US$5-$10, $1,000-$2,000, 5$ or 6$, $5/$6.",
    "Between $5 (was $6) and 7$; **$5**/**$6**; $3 + $4 = $7.",
    "Restaurants: $$ to $$$, or $$ and $$.",
    "The variables $HOME and $PATH, $HOME/$USER, ${HOME}/${USER}, $(a)$(b), $HOME$, `$x$` and ``$$ y $$``.",
    r"\$x\$ and \[1\] and \(see below\) and \[a link\](https://a.example).",
    "From $20! Pay in US$. One $ is 0.92 € and $1 = €0.92; 1 € = 1.08$.",
)
FORMULAS = (
    "$x$ and $a_1 + b_1$, $n+1$, $-1$, ($y$), **$z$**: $E = mc^2$.",
    r"It costs $5, and \(a + b\), \( \frac{1}{2} \), \(x\) are formulas.",
    "$$\nx = 1\n$$",
    "\\[\n\\begin{aligned}\na &= b \\\\\n- c &= d\n\\end{aligned}\n\\]",
    "$$ x^2 $$",
    r"So \[ x = \text{a word} \] holds.",
    "- $x$ in a list\n- \\[ y = 1 \\]",
    "> $x$ in a quote",
    "| $a^2$ | b |\n|---|---|\n| $x$ | 1 |",
)
BROKEN = (r"$\frac{1}{$", r"\(\unknown{x}\)", r"$\href{javascript:alert(1)}{x}$", "$" + "{x^" * 100 + "}" * 100 + "$")


async def test_formulas_are_drawn_and_prices_are_not(watched: Page, system: System) -> None:
    page = watched
    text = "\n\n".join([*TEXTS, "```latex\n$$ x^2 $$\n```"])
    system.fake.play("prices", Answer(deltas=[text[at : at + 9] for at in range(0, len(text), 9)]))
    await page.ask("Prices", model="openai/prices")
    assert await page.until_state(*ENDED) == "done"
    assert await page.script(_FORMULAS) == []
    assert await page.script(_LOADED) == []

    text = "\n\n".join(FORMULAS)
    system.fake.play("formulas", Answer(deltas=[text[at : at + 9] for at in range(0, len(text), 9)]))
    await page.ask("Formulas", model="openai/formulas")
    assert await page.until_state(*ENDED) == "done"
    await page.until(lambda: are_drawn(page))
    assert len(await page.script(_FORMULAS)) == 19
    undrawn = await page.script(_UNDRAWN)
    assert undrawn == []
    text = await page.script("return document.querySelector('[data-testid=answer] p').textContent")
    assert text.startswith("x and a1+b1, n+1, ")
    assert text.endswith(", (y), z: E=mc2.")
    await page.reload()  # the whole answer at once
    await page.until(lambda: are_drawn(page))
    assert len(await page.script(_FORMULAS)) == 19


async def are_drawn(page: Page) -> bool:
    return {kind for kind, _ in await page.script(_FORMULAS)} == {"math"}


async def test_a_formula_that_is_refused_shows_its_source(watched: Page, system: System) -> None:
    page = watched
    system.fake.play("broken", Answer(deltas=["\n\n".join([*BROKEN, r"$\color{red}{x}\includegraphics{a}$", "$y$"])]))
    await page.ask("Formulas", model="openai/broken")
    assert await page.until_state(*ENDED) == "done"
    await page.until(lambda: is_last_drawn(page))
    shown = await page.script(_FORMULAS)
    assert [text for kind, text in shown if kind == "source"][: len(BROKEN)] == list(BROKEN)
    found = await page.script(INSPECT)
    assert not {"IMG", "SCRIPT", "annotation", "semantics", "maction"} & set(found["tags"])
    assert found["links"] == []


async def is_last_drawn(page: Page) -> bool:
    shown = await page.script(_FORMULAS)
    return bool(shown and shown[-1][0] == "math")
