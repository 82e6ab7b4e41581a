"""pydantic's errors in plain words, with their place in the file.

They are written for someone who knows SES and has the file open: what is wrong there, and what to write instead.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError

from inbound.decide.document import Document
from inbound.decide.problem import KeyPath, Problem, shown
from inbound.decide.rules import RuleFile, Strict

Error = Mapping[str, Any]


LIMIT = 1000


def in_words(document: Document, error: ValidationError, root: type[Strict] = RuleFile) -> Iterator[Problem]:
    """One problem for each error in a file of the model `root`, up to LIMIT.

    None where the text itself was refused already, or a misspelt key is all that is wrong.
    """
    errors: list[Error] = [*error.errors(include_url=False)[:LIMIT]]
    meant = {_meant(root, found["loc"]) for found in errors if found["type"] == "extra_forbidden"}
    for found in errors:
        path: KeyPath = found["loc"]
        if found["type"] == "extra_forbidden":
            yield document.problem(path, _unknown_key(root, document, path), key=True)
        elif path[-1:] == ("[key]",):
            yield document.problem(path[:-1], _message(found), key=True)
        elif document.knows(path) and path not in meant:
            yield document.problem(path, _message(found))


def near(text: str, known: list[str]) -> str | None:
    """The known word that the text most likely means; case, '_' and '-' do not count."""
    folded = {word.lower().replace("_", "").replace("-", ""): word for word in known}
    found = difflib.get_close_matches(text.lower().replace("_", "").replace("-", ""), folded, 1, cutoff=0.75)
    return folded[found[0]] if found else None


def _message(error: Error) -> str:
    says = _SAYS.get(error["type"])
    return says(error["input"], error.get("ctx", {})) if says else str(error["msg"])


def _unknown_key(root: type[Strict], document: Document, path: KeyPath) -> str:
    key = str(path[-1])
    model = _model_at(root, path[:-1])
    owners = [name for name, inner in _inner_models(model) if key in inner.model_fields]
    present = [name for name in owners if document.has((*path[:-1], name))]
    if owners:
        return f"unknown key here; it belongs under {' or '.join(present or owners)}, indented further"
    meant = _meant(root, path)
    return f"unknown key; did you mean {meant[-1]!r}?" if meant else f"unknown key; known here: {', '.join(model.model_fields)}"


def _meant(root: type[Strict], path: KeyPath) -> KeyPath:
    """The path of the known key that an unknown one most likely means, or none."""
    meant = near(str(path[-1]), list(_model_at(root, path[:-1]).model_fields))
    return (*path[:-1], meant) if meant else ()


def _model_at(root: type[Strict], path: KeyPath) -> type[Strict]:
    """The model of the mapping at the path."""
    annotation: Any = root
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, Strict):
            annotation = _bare(annotation.model_fields[str(part)].annotation)
        else:
            annotation = _item(annotation)
    model: type[Strict] = annotation
    return model


def _inner_models(model: type[Strict]) -> Iterator[tuple[str, type[Strict]]]:
    """The keys of the model below which other models stand, with those."""
    for name, field in model.model_fields.items():
        annotation = _bare(field.annotation)
        while get_origin(annotation) in (tuple, dict):
            annotation = _item(annotation)
        if isinstance(annotation, type) and issubclass(annotation, Strict):
            yield name, annotation


def _item(annotation: Any) -> Any:
    """X of tuple[X, ...] and of dict[str, X]."""
    return _bare(get_args(annotation)[1 if get_origin(annotation) is dict else 0])


def _bare(annotation: Any) -> Any:
    """X of Annotated[X, ...] and of X | None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next(arg for arg in get_args(annotation) if arg is not types.NoneType))
    return annotation


def _kind(value: Any) -> str:
    if value is None:
        return "has no value"
    if isinstance(value, list):
        return "is a list"
    if isinstance(value, dict):
        return "is a mapping"
    return f"is {shown(value)}"


def _text(value: Any, _context: Error) -> str:
    return f"{_kind(value)}; write one text" + (", in quotes if the word null is meant" if value is None else "")


def _boolean(value: Any, _context: Error) -> str:
    quoted = ", without quotes" if str(value).lower() in ("true", "false") else ""
    return f"{_kind(value)}; write true or false{quoted}"


def _list(value: Any, _context: Error) -> str:
    if value is None:
        return "has no value; write a list, or leave the key out"
    return f"{_kind(value)}; write a list" + (f": [{value}]" if isinstance(value, str) and len(value) <= 80 else "")


def _mapping(value: Any, _context: Error) -> str:
    return f"{_kind(value)}; write a mapping of keys and values"


def _one_of(value: Any, context: Error) -> str:
    return f"{_kind(value)}; write {context['expected']}"


def _too_many(value: Any, context: Error) -> str:
    return f"has {len(value)} entries; SES allows at most {context['max_length']}"


def _too_long(value: Any, context: Error) -> str:
    return f"has {len(value)} characters; SES allows at most {context['max_length']}"


_SAYS: dict[str, Callable[[Any, Error], str]] = {
    "missing": lambda _value, _context: "is missing; add it here",
    "string_type": _text,
    "bool_type": _boolean,
    "tuple_type": _list,
    "dict_type": _mapping,
    "model_type": _mapping,
    "literal_error": _one_of,
    "too_long": _too_many,
    "string_too_long": _too_long,
    "string_too_short": lambda _value, _context: "is empty",
    "value_error": lambda _value, context: str(context["error"]),
}
