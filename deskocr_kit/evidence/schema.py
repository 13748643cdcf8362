"""The part of JSON Schema that this kit's own schemas use; jsonschema itself is for developers only."""

from __future__ import annotations

from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
    "number": (int, float), "integer": int,
}  # fmt: skip


def fault(value: Any, schema: dict, root: dict | None = None, at: str = "") -> str | None:
    """The first place where a value does not fit, such as "pages.0.cer: expected number"; None if it fits.

    Knows type, required, properties, additionalProperties, items, enum, const, $ref to $defs, minimum,
    exclusiveMinimum, if, then and else; other keywords are notes.
    """
    root = schema if root is None else root
    if "$ref" in schema:
        schema = {
            **root["$defs"][schema["$ref"].rpartition("/")[2]],
            **{k: v for k, v in schema.items() if k != "$ref"},
        }
    where = f"{at or 'the file'}: "
    if "type" in schema and not _is(value, schema["type"]):
        return f"{where}expected {_words(schema['type'])}"
    if "const" in schema and value != schema["const"]:
        return f"{where}expected {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where}expected one of {schema['enum']}"
    if _is(value, "number") and not isinstance(value, bool):
        if "minimum" in schema and not value >= schema["minimum"]:
            return f"{where}expected at least {schema['minimum']}"
        if "exclusiveMinimum" in schema and not value > schema["exclusiveMinimum"]:
            return f"{where}expected more than {schema['exclusiveMinimum']}"
    if isinstance(value, dict) and (found := _in_object(value, schema, root, at)):
        return found
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for i, each in enumerate(value):
            if found := fault(each, schema["items"], root, f"{at}.{i}".lstrip(".")):
                return found
    if "if" in schema:
        branch = "then" if fault(value, schema["if"], root, at) is None else "else"
        return fault(value, schema.get(branch, {}), root, at)
    return None


def _in_object(value: dict, schema: dict, root: dict, at: str) -> str | None:
    for name in schema.get("required", ()):
        if name not in value:
            return f"{at or 'the file'}: {name!r} is missing"
    known = schema.get("properties", {})
    for name, each in value.items():
        inner = known.get(name, schema.get("additionalProperties"))
        if inner is False:
            return f"{at or 'the file'}: {name!r} is not expected"
        if isinstance(inner, dict) and (found := fault(each, inner, root, f"{at}.{name}".lstrip("."))):
            return found
    return None


def _is(value: Any, kind: str | list[str]) -> bool:
    if isinstance(kind, list):
        return any(_is(value, each) for each in kind)
    if kind in ("number", "integer") and isinstance(value, bool):
        return False
    return isinstance(value, TYPES[kind]) or (
        kind == "integer" and isinstance(value, float) and value.is_integer()
    )


def _words(kind: str | list[str]) -> str:
    return kind if isinstance(kind, str) else " or ".join(kind)
