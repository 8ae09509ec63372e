"""The API's description to read: made of the OpenAPI document, with no script and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from ..common.errors import BusError
from .problems import title_of

STYLE: Final = """
:root{color-scheme:light dark;--line:color-mix(in srgb,currentColor 18%,transparent)}
body{font:16px/1.55 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1.5rem}
h1{font-size:1.6rem}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
article{margin:1.75rem 0}h3{font-size:1rem;margin:0 0 .25rem}
code,h3 b{font-family:ui-monospace,monospace;font-size:.92em}
table{border-collapse:collapse;width:100%;margin:.5rem 0;font-size:.92rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-top:1px solid var(--line)}
th{font-weight:600}nav a{margin-right:1rem}
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode("ascii")
POLICY: Final = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; frame-ancestors 'none'"
"""The style above, and nothing else."""


def docs_page(document: Mapping[str, Any]) -> str:
    """HTML for an OpenAPI document."""
    return "".join(_page(document))


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info, schemas = document["info"], document["components"]["schemas"]
    by_tag: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield f"<title>{escape(info['title'])} API</title><style>{STYLE}</style></head><body>"
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['summary'])} "
    yield 'As a document for programs: <a href="/openapi.json">openapi.json</a>.</p><nav>'
    for tag in (*by_tag, "Errors"):
        yield f'<a href="#{escape(tag)}">{escape(tag)}</a>'
    yield "</nav>"
    for tag, operations in by_tag.items():
        yield f'<h2 id="{escape(tag)}">{escape(tag)}</h2>'
        for method, path, operation in operations:
            yield from _operation(method, path, operation, schemas)
    yield from _errors()
    yield "</body></html>"


def _operation(
    method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]
) -> Iterator[str]:
    yield f'<article id="{escape(operation["operationId"])}">'
    yield f"<h3><b>{method}</b> <code>{escape(path)}</code></h3>"
    yield f"<p>{escape(operation['summary'])}. {escape(operation.get('description', ''))}</p>"
    rows = [
        (parameter["name"], f"in the {parameter['in']}", parameter["schema"], parameter["required"])
        for parameter in operation.get("parameters", ())
    ]
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _followed(content["schema"], schemas)
        needed = schema.get("required", ())
        rows += [
            (name, f"in the body ({media_type})", part, name in needed)
            for name, part in schema.get("properties", {}).items()
        ]
    if rows:
        yield "<table><tr><th>field</th><th>where</th><th>kind</th><th></th></tr>"
        for name, where, schema, required in rows:
            about = str(schema.get("description", ""))
            default = (
                ""
                if "default" not in schema
                else f" Default: <code>{escape(repr(schema['default']))}</code>."
            )
            yield f"<tr><td><code>{escape(name)}</code></td><td>{escape(where)}</td>"
            yield f"<td>{escape(_kind(schema))}</td>"
            yield f"<td>{'Required. ' if required else ''}{escape(about)}{default}</td></tr>"
        yield "</table>"
    yield "<table><tr><th>answer</th><th>as</th><th></th></tr>"
    for status, response in operation["responses"].items():
        kinds = ", ".join(response.get("content", {})) or "–"
        yield f"<tr><td>{escape(status)}</td><td>{escape(kinds)}</td>"
        yield f"<td>{escape(response['description'])}</td></tr>"
    yield "</table></article>"


def _errors() -> Iterator[str]:
    yield '<h2 id="Errors">Errors</h2>'
    yield "<table><tr><th>code</th><th>status</th><th>meaning</th><th>again?</th></tr>"
    for code, error in sorted(BusError.by_code.items()):
        again = "may help" if error.retryable else ""
        yield f'<tr id="{escape(code)}"><td><code>{escape(code)}</code></td><td>{error.http_status}</td>'
        yield f"<td>{escape(title_of(error))}.</td><td>{again}</td></tr>"
    yield "</table>"


def _followed(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return schemas[str(reference).rpartition("/")[2]] if reference else schema


def _kind(schema: Mapping[str, Any]) -> str:
    """A type in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    words = [str(schema.get("type", "anything"))]
    if "items" in schema:
        words.append(f"of {_kind(schema['items'])}")
    for key, sign in (("minimum", "≥"), ("maximum", "≤"), ("maxLength", "up to")):
        if key in schema:
            words.append(f"{sign} {schema[key]}")
    return " ".join(words)
