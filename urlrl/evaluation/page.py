"""HTML pages that need no other file, no network and no script.

A page embeds each figure twice, for light and dark screens; the light one is also written beside the page as PNG.
"""

import base64
import html
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from urlrl.evaluation import figures
from urlrl.files import write_atomically


def escape(text: Any) -> str:
    return html.escape(str(text), quote=True)


def header(title: str, facts: Iterable[tuple[str, str, str]]) -> str:
    """The title, and below it (name, value, more) of the few facts that a reader looks for first."""
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in facts
    )
    return f'<header><h1>{escape(title)}</h1>\n<dl class="facts">{cells}</dl></header>'


def section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def note(sentence: str) -> str:
    return f'<p class="note">{escape(sentence)}</p>'


def caption(text: str) -> str:
    return f'<p class="caption">{escape(text)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """A table whose cells are text; `kind` is its CSS class."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = (
        f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def figure(image: str, caption: str) -> str:
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def picture(path: Path, draw: Callable[[figures.Theme], Figure], alt: str, caption: str) -> str:
    """Draw a figure for both themes, write the light one to `path`, and return the HTML that embeds both."""
    drawn = [figures.png(draw(theme)) for theme in (figures.LIGHT, figures.DARK)]
    write_atomically(path, drawn[0])
    light, dark = (uri(image, "png") for image in drawn)
    return figure(
        f'<picture><source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(alt)}"></picture>',
        caption,
    )


def number(value: float) -> str:
    """As a reader wants it: counts in full, measurements to four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


_STYLE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
main{max-width:960px;margin:0 auto;padding:4.5rem 1.5rem 5rem}
h1{font-size:2.3rem;line-height:1.15;font-weight:680;letter-spacing:-.02em;margin:0 0 2rem;overflow-wrap:anywhere}
h2{font-size:1.3rem;font-weight:640;letter-spacing:-.01em;margin:0 0 1.25rem}
section{border-top:1px solid var(--rule);margin-top:3.25rem;padding-top:2rem}
p{max-width:42rem;margin:0 0 1.25rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:1.5rem 2rem;margin:0}
.facts dt{color:var(--muted);font-size:.8rem}
.facts dd{margin:.1rem 0 0;font-size:1.35rem;font-weight:600;line-height:1.3;font-variant-numeric:tabular-nums}
.facts small{display:block;color:var(--muted);font-size:.8rem;font-weight:400}
figure{margin:0 0 2.25rem}
figure img{display:block;max-width:100%;height:auto;margin:0 auto;border-radius:3px}
figure picture img{width:100%;max-width:860px}
figcaption,.caption{color:var(--muted);font-size:.875rem;line-height:1.5;max-width:42rem;margin:.75rem auto 0}
.caption{margin:.5rem 0 2rem}
.note{color:var(--muted);border-left:3px solid var(--rule);padding-left:1rem}
table{border-collapse:collapse;width:100%;font-size:.9rem;line-height:1.45;margin:0 0 1.75rem}
th,td{padding:.4rem 1rem .4rem 0;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top;
font-weight:400}
thead th{color:var(--muted);font-size:.8rem;border-bottom-color:var(--muted)}
.numbers{max-width:42rem;margin-bottom:0}
.numbers td,.numbers thead th:not(:first-child){text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap;
padding-left:1rem;padding-right:0}
.numbers td:nth-child(2){font-weight:640}
.wide{display:block;overflow-x:auto}
.wide td,.wide th{white-space:nowrap}
.wide td,.wide thead th:not(:first-child){text-align:right;font-variant-numeric:tabular-nums;padding-left:1rem;
padding-right:0}
.settings th{width:38%;color:var(--muted)}
.settings td{font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
code,pre{font:.86em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{border:1px solid var(--rule);border-radius:4px;padding:.9rem 1rem;margin:0 0 1.75rem;white-space:pre-wrap;
overflow-wrap:anywhere}
@media (max-width:600px){main{padding-top:2.5rem}h1{font-size:1.75rem}}
@media print{body{font-size:10pt}main{max-width:none;padding:0}section{margin-top:1.5rem;padding-top:1rem}
figure,pre,.numbers,.facts,tr{break-inside:avoid}h2{break-after:avoid}figure picture img{max-width:13cm}}
"""


def document(title: str, body: str) -> str:
    light, dark = (
        "".join(f"--{name}:{value};" for name, value in vars(theme).items()) for theme in (figures.LIGHT, figures.DARK)
    )
    # The policy makes the promise checkable: a browser refuses whatever is not in this file.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>:root{{{light}}}
@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}{_STYLE}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
