"""What a JSON document must look like, and in words where one does not; ``untrusted`` reads the documents."""

import reprlib
from functools import cached_property
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from fastjsonschema import JsonSchemaValueException

Form = Mapping[str, Any]  # a JSON schema
Check = Callable[[Any], Any]  # raises JsonSchemaValueException

# Draft 4 takes 5.0 for no whole number.
DRAFT = "http://json-schema.org/draft-04/schema#"

ANY: Form = {}
TEXT: Form = {"type": "string"}
FLAG: Form = {"type": "boolean"}
NUMBER: Form = {"type": "number"}

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 60
_MAX_PLACE = 120  # characters


class Schema:
    """The form of a JSON object, as a JSON schema (draft 4) that is compiled on first use."""

    def __init__(self, **form: Any):
        self.form = {"type": "object", **form}

    @cached_property
    def _quick(self) -> Check:
        return self._compiled(detailed=False)

    def _compiled(self, detailed: bool) -> Check:
        import fastjsonschema

        form = {"$schema": DRAFT, **self.form}
        check: Check = fastjsonschema.compile(form, use_default=False, detailed_exceptions=detailed)
        return check

    def fault(self, document: Any) -> Optional[str]:
        """The first thing that does not fit in ``document``: where, what it is, what it must be. None: all fits."""
        from fastjsonschema import JsonSchemaValueException

        try:
            self._quick(document)
        except JsonSchemaValueException as error:
            # The details take three times as long to compile, and nearly all documents fit.
            return _first_fault(self._compiled(detailed=True), document) or str(error)
        return None


def _first_fault(check: Check, document: Any) -> Optional[str]:
    from fastjsonschema import JsonSchemaValueException

    try:
        check(document)
    except JsonSchemaValueException as error:
        return _in_words(error)
    return None


def _in_words(error: "JsonSchemaValueException") -> str:
    name, rule = str(error.name), str(error.rule)
    place = _printable(name[len("data") :].lstrip(".")) or "it"
    if rule == "required":
        return f"{place} lacks {', '.join(key for key in error.rule_definition if key not in error.value)}"
    demand = _DEMANDS.get(rule)
    wanted = demand(error.rule_definition) if demand else error.message[len(name) :].strip()
    return f"{place} is {shown(error.value)}, and must be {wanted}"


def form_of(hint: Any) -> Form:
    """The form of what a type says: a TypedDict and what is in it, lists, dictionaries by text, Optional, scalars."""
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if isinstance(hint, type):
        return record({name: form_of(kind) for name, kind in get_type_hints(hint).items()})
    inner = get_args(hint)
    if get_origin(hint) is list:
        return list_of(form_of(inner[0]))
    if get_origin(hint) is dict:
        return object_of(form_of(inner[1]))
    return {"anyOf": [form_of(one) for one in inner]}


_SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def _types(wanted: Any) -> str:
    names = {"null": "null", "object": "an object", "array": "a list", "string": "text", "boolean": "true or false",
             "integer": "a whole number", "number": "a number"}  # fmt: skip
    return " or ".join(names[name] for name in ([wanted] if isinstance(wanted, str) else wanted))


_DEMANDS: Dict[str, Callable[[Any], str]] = {
    "type": _types,
    "minimum": lambda bound: f"at least {bound:,}",
    "maximum": lambda bound: f"at most {bound:,}",
    "pattern": lambda pattern: f"of the form {pattern}",
    "enum": lambda values: " or ".join(map(repr, values)),
    "minLength": lambda length: f"of at least {length} characters",
    "maxLength": lambda length: f"of at most {length} characters",
    "minItems": lambda count: f"of at least {count} items",
    "maxItems": lambda count: f"of at most {count} items",
    "additionalProperties": lambda _: "without other names",
    "anyOf": lambda forms: " or ".join(_types(form["type"]) for form in forms),
}


def shown(value: Any) -> str:
    """A value for a message: on one line, and short."""
    return _printable(_BRIEF.repr(value))


def _printable(text: str) -> str:
    """``text`` without what moves the cursor of a terminal, cut in the middle where it is long."""
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= _MAX_PLACE else f"{text[: _MAX_PLACE // 2]}…{text[-_MAX_PLACE // 2 :]}"


def whole(minimum: int, maximum: int, *more: str) -> Form:
    """The form of a whole number; ``more`` are other types that it may be, such as ``"null"``."""
    return {"type": ["integer", *more] if more else "integer", "minimum": minimum, "maximum": maximum}


def object_of(values: Form, **more: Any) -> Form:
    """The form of an object of any names whose values have the form ``values``."""
    return {"type": "object", "additionalProperties": dict(values), **more}


def list_of(items: Form, **more: Any) -> Form:
    """The form of a list."""
    return {"type": "array", "items": dict(items), **more}


def record(required: Mapping[str, Form], optional: Optional[Mapping[str, Form]] = None) -> Form:
    """The form of an object with the names of ``required``, where those of ``optional`` have their form too."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}
