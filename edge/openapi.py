"""The OpenAPI 3.1 document, made of the same table that is served."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from ..common.errors import BusError
from .problems import FORMS, title_of
from .routes import JSON, Route

VERSION: Final = "3.1.0"
_NAME = re.compile(r"\{(\w+)(?::[^}]*)?\}")
REF: Final = "#/components/schemas/{name}"
SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "xi-api-key": {"type": "apiKey", "in": "header", "name": "xi-api-key"},
}
"""Of keys, where the server asks for any."""


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The whole document."""
    routes = [route for route in routes if route.described]
    types: list[Any] = [form.type for form in FORMS.values()]
    for route in routes:
        types += [kind for kind in (route.body, route.query, route.form) if kind is not None]
        types += [answer.type for answer in route.answers if answer.type is not None]
    types = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    named = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _NAME.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, named, components)
    return {
        "openapi": VERSION,
        "info": {
            "title": "voicebus",
            "version": version,
            "summary": "Text and a voice in, speech in that voice out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": SCHEMES,
        },
        "security": [*({name: []} for name in SCHEMES), {}],
    }


def _operation(route: Route, named: Mapping[Any, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^a-z0-9]+', '_', route.path.lower())}".rstrip("_"),
        "summary": route.summary,
        "tags": [route.tag],
        "responses": _responses(route, named),
    }
    if about := " ".join(filter(None, (route.about, _needs(route)))):
        made["description"] = about
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _NAME.findall(route.path)
    ]
    if route.query is not None:
        parameters += _query(route.query, components)
    if parameters:
        made["parameters"] = parameters
    if route.body is not None:
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": named[route.body]}}}
    if route.form is not None:
        made["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": named[route.form]}},
        }
    if route.door == "open":
        made["security"] = [{}] if route.scope is None else [{}, *_schemes(route)]
    elif route.scope is not None:
        made["security"] = [*_schemes(route), {}]
    return made


def _schemes(route: Route) -> list[dict[str, list[str]]]:
    """Since 3.1 a scheme without scopes of its own may name roles, which is what ours are."""
    return [{name: [] if route.scope is None else [route.scope]} for name in SCHEMES]


def _needs(route: Route) -> str:
    if route.door == "open":
        return "Needs no key."
    return "Needs any key." if route.scope is None else f"Needs a key with the scope `{route.scope}`."


def _query(form: type[msgspec.Struct], components: Mapping[str, Any]) -> list[dict[str, Any]]:
    schema = components[form.__name__]
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": part}
        for name, part in schema["properties"].items()
    ]


def _responses(route: Route, named: Mapping[Any, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for answer in route.answers:
        content: dict[str, dict[str, Any]] = {
            kind: {"schema": named[answer.type] if answer.type is not None and kind == JSON else {}}
            for kind in answer.media_types
        }
        made[str(answer.status)] = {"description": answer.about, **({"content": content} if content else {})}
    form = FORMS[route.shape]
    by_status: dict[int, list[type[BusError]]] = {}
    for error in route.all_errors:
        by_status.setdefault(error.http_status, []).append(error)
    for status, errors in sorted(by_status.items()):
        said = "; ".join(f"`{error.code}`: {title_of(error)}" for error in errors)
        made[str(status)] = {
            "description": said,
            "content": {form.media_type: {"schema": named[form.type]}},
        }
    return made
