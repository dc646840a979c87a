"""Report as a page: one file of HTML, without scripts, that can be published as it is."""

from html import escape
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark; --good: #1a7f37; --bad: #cf222e; --dim: #6e7781; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } .verdict { font-size: 1.2rem; margin-top: .2rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
ul { margin: .3rem 0; padding-left: 1.2rem; }
.passed { color: var(--good); } .failed { color: var(--bad); } .not_applicable, .dim { color: var(--dim); }
.word { font-weight: 600; white-space: nowrap; }
"""
_WORDS: Final = {"passed": "passed", "failed": "FAILED", "not_applicable": "not applicable"}


def as_page(data: dict[str, Any]) -> str:
    """Render a report of :func:`headrace_conformance.report.data.as_data`."""
    counts, subject = data["counts"], escape(data["subject"])
    passed = "conforms" if data["is_whole"] else "no failure in the checks that were run"
    verdict = "does not conform" if counts["failed"] else passed
    grade = "failed" if counts["failed"] else "passed"
    rows = "\n".join(map(_row, data["checks"]))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Resume conformance: {subject}</title>
<style>{_STYLE}</style>
<h1>{subject}</h1>
<p class="verdict"><span class="word {grade}">{verdict}</span>: {counts["passed"]} passed, {counts["failed"]} failed,
{counts["not_applicable"]} not applicable</p>
{_facts(data)}
<table>
<thead><tr><th>Check</th><th>Rule</th><th>Outcome</th><th>Seconds</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<p class="dim">The evidence has ids and positions of events, never their texts.</p>
</html>
"""


def _facts(data: dict[str, Any]) -> str:
    profile = data["profile"]
    facts = {
        "Profile": f"{profile['name']}: {profile['title']} ({profile['reference']})",
        "Checked": f"{data['began_at']}, in {data['seconds']} s",
        "Kit": f"headrace-conformance {data['kit']}, Python {data['python']}",
    }
    rows = [f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in facts.items()]
    rows.append(f"<tr><th>Command</th><td><code>{escape(data['command'])}</code></td></tr>")
    rows += [
        f"<tr><th>Lacks</th><td>{escape(name)}: {escape(reason)}</td></tr>" for name, reason in data["lacks"].items()
    ]
    return f"<table>{''.join(rows)}</table>"


def _row(check: dict[str, Any]) -> str:
    evidence = "".join(f"<li><code>{escape(found)}</code></li>" for found in check["evidence"])
    return (
        f'<tr id="{escape(check["id"])}"><td>{escape(check["title"])}<br><code>{escape(check["id"])}</code></td>'
        f"<td>{escape(check['rule'])}</td>"
        f'<td><span class="word {check["outcome"]}">{_WORDS[check["outcome"]]}</span><br>{escape(check["detail"])}'
        f"{f'<ul>{evidence}</ul>' if evidence else ''}</td><td>{check['seconds']}</td></tr>"
    )
