"""Reads our own YAML files strictly: what is wrong is named with file, line, key and remedy."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from app.domain.errors import ConfigurationError

Shape = TypeVar("Shape", bound=BaseModel)


# What YAML 1.1 takes for another number than a reader does, unless it is quoted: 015 is 13 to it, 1:30 is 90, 1_000 is
# 1000; and 1e3, which it takes for a text, is 1000 to whoever reads the text.
_PLAIN = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", re.ASCII)
_EXPONENT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+|0[oO][0-7]+", re.ASCII)
_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
_MOST_DIGITS = 30
# A file of a person has some hundred parts; one that an alias repeats a hundred times over has a hundred of them.
_MOST_PARTS = 100_000


class _Strict(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys in silence and numbers for other numbers, and answers what its tag does
    not fit with bare errors of Python."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _fault(f"key {key.value} stands twice", key)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.style is None:
            _refuse_number(node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise _fault(str(error), node) from None
        except (AttributeError, KeyError, IndexError, TypeError):
            tag = node.tag.removeprefix("tag:yaml.org,2002:")
            raise _fault(f"{str(node.value)[:40]!r} is no {tag}; write it without a tag", node) from None


def _refuse_number(node: yaml.ScalarNode) -> None:
    text = str(node.value)
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    number = node.tag in _NUMBERS
    if number and len(text) > _MOST_DIGITS:
        raise _fault(f"{shown} has more digits than any number here", node)
    if (number and not _PLAIN.fullmatch(text)) or _EXPONENT.fullmatch(text):
        raise _fault(f"{shown} is no plain decimal number: write it as in 0.40 or 15, or quote it as text", node)


def _fault(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def plain_number(value: Any) -> Any:
    """For numbers of our files, before they are validated: quoted or not, a plain decimal. Raises ValueError."""
    if isinstance(value, bool) or (isinstance(value, str) and not _PLAIN.fullmatch(value)):
        raise ValueError(f"{str(value)[:40]!r} is no plain decimal number; write it as in 4 or 0.40")
    if isinstance(value, str) and len(value) > _MOST_DIGITS:
        raise ValueError(f"{value[:40]}… has more digits than any number here")
    return value


@dataclass(frozen=True)
class Document(Generic[Shape]):
    """A file that was read, and where each of its parts stands."""

    value: Shape
    path: Path
    node: yaml.Node | None

    def where(self, *location: str | int) -> str:
        """`file:line` of the part at `location`, or of the deepest part of it that stands in the file."""
        return f"{self.path}:{_line(self.node, location)}"


def read(path: Path, shape: type[Shape], *, remedy: str) -> Document[Shape]:
    """Reads `path` as `shape`. Raises ConfigurationError; `remedy` says what to do about a file that is not there."""
    node, content = _parsed(path, _text(path, remedy))
    try:
        return Document(shape.model_validate(content), path, node)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(path, node, problem) for problem in error.errors())) from None


def _text(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}; {remedy}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not text in UTF-8 ({error.reason}); restore it") from None


def documents(path: Path) -> list[Any]:
    """All documents of a YAML file that is somebody else's to understand. Raises ConfigurationError."""
    return [content for _, content in _documents(path, _text(path, "restore it"))]


def _parsed(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    found = _documents(path, text)
    if len(found) > 1:
        raise ConfigurationError(f"{path}: holds {len(found)} documents; keep the first, and take out the others")
    return found[0] if found else (None, None)


def _documents(path: Path, text: str) -> list[tuple[yaml.Node, Any]]:
    try:
        loader = _Strict(text)
        try:
            found = []
            while loader.check_node():
                node = loader.get_node()
                assert node is not None  # noqa: S101 - it has just been checked
                _refuse_multitude(path, node)
                found.append((node, loader.construct_document(node)))
            return found
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
        raise ConfigurationError(f"{path}:{line}: is not text in UTF-8 ({error.reason}); restore it") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except (RecursionError, ValueError) as error:  # ValueError: a number in a directive or an escape beyond all bounds
        problem = "is nested too deep to be read" if isinstance(error, RecursionError) else f"not valid YAML: {error}"
        raise ConfigurationError(f"{path}: {problem}; restore it") from None


def _refuse_multitude(path: Path, root: yaml.Node) -> None:
    """Raises ConfigurationError for a document that is endless, or near it, by aliases of aliases."""
    sizes: dict[int, int] = {}
    begun: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting[-1]
        children = _children(node)
        missing = [child for child in children if id(child) not in sizes]
        if id(node) in begun and any(id(child) in begun and id(child) not in sizes for child in missing):
            raise ConfigurationError(f"{path}:{node.start_mark.line + 1}: refers to itself; write it out")
        begun.add(id(node))
        if missing:
            waiting.extend(missing)
            continue
        waiting.pop()
        sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
        if sizes[id(node)] > _MOST_PARTS:
            where = f"{path}:{node.start_mark.line + 1}"
            raise ConfigurationError(f"{where}: has more parts than any file of ours, by its aliases; write it out")


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


_MESSAGES = {
    "extra_forbidden": "unknown key",
    "model_type": "must be a mapping of keys and values, and is none",
    "dict_type": "must be a mapping of keys and values, and is none",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
}


def _explain(path: Path, node: yaml.Node | None, problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    message = _MESSAGES.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    return f"{path}:{_line(node, problem['loc'])}: {where or 'file'}: {message}"


def _line(node: yaml.Node | None, location: tuple[Any, ...]) -> int:
    """The line of the deepest part of `location` that stands in the file."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        found = _child(node, part)
        if found is None:
            break
        named, node = found
        line = named.start_mark.line + 1
    return line


def _child(node: yaml.Node | None, part: Any) -> tuple[yaml.Node, yaml.Node] | None:
    """The node that names `part` inside `node`, and the node that holds it."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None
