"""Reads the project's YAML files strictly. Errors name file, line, key and remedy."""

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


# The only number form that YAML 1.1 and people read alike. YAML reads 015 as 13, 1:30 as 90, 1_000 as 1000, and 1e3 as
# a text.
_PLAIN = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", re.ASCII)
_EXPONENT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+|0[oO][0-7]+", re.ASCII)
_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
_MAX_DIGITS = 30
# The most nodes of a file after its aliases are expanded. A normal file has some hundred.
_MAX_NODES = 100_000


class _Strict(yaml.SafeLoader):
    """A loader that refuses duplicate keys and ambiguous numbers, which PyYAML accepts, and reports values that do not
    fit their tag as YAML errors, for which PyYAML raises plain Python errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in names:
                raise _fault(f"key {key.value} occurs twice", key)
            names.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.style is None:
            _refuse_ambiguous_number(node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise _fault(str(error), node) from None
        except (AttributeError, KeyError, IndexError, TypeError):
            tag = node.tag.removeprefix("tag:yaml.org,2002:")
            raise _fault(f"{str(node.value)[:40]!r} does not fit the tag {tag}; write it without a tag", node) from None


def _refuse_ambiguous_number(node: yaml.ScalarNode) -> None:
    text = str(node.value)
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    number = node.tag in _NUMBERS
    if number and len(text) > _MAX_DIGITS:
        raise _fault(f"{shown} has more digits than any number here", node)
    if (number and not _PLAIN.fullmatch(text)) or _EXPONENT.fullmatch(text):
        raise _fault(f"{shown} is not a plain decimal number: write it as in 0.40 or 15, or quote it as text", node)


def _fault(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def plain_number(value: Any) -> Any:
    """A validator for number fields: accepts plain decimals only, quoted or not. Raises ValueError."""
    if isinstance(value, bool) or (isinstance(value, str) and not _PLAIN.fullmatch(value)):
        raise ValueError(f"{str(value)[:40]!r} is not a plain decimal number; write it as in 4 or 0.40")
    if isinstance(value, str) and len(value) > _MAX_DIGITS:
        raise ValueError(f"{value[:40]}… has more digits than any number here")
    return value


@dataclass(frozen=True)
class Document(Generic[Shape]):
    """The parsed contents of a file, with the line of each part."""

    value: Shape
    path: Path
    node: yaml.Node | None

    def where(self, *location: str | int) -> str:
        """`file:line` of the part at `location`, or of its deepest ancestor in the file."""
        return f"{self.path}:{_line(self.node, location)}"


def read(path: Path, shape: type[Shape], *, remedy: str) -> Document[Shape]:
    """Reads and validates a file as `shape`. Raises ConfigurationError, with `remedy` if the file cannot be opened."""
    node, content = _parse(path, _text(path, remedy))
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
    """Reads all documents of a YAML file without validating them. Raises ConfigurationError."""
    return [content for _, content in _documents(path, _text(path, "restore it"))]


def _parse(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    parsed = _documents(path, text)
    if len(parsed) > 1:
        raise ConfigurationError(f"{path}: contains {len(parsed)} documents; keep the first, and remove the others")
    return parsed[0] if parsed else (None, None)


def _documents(path: Path, text: str) -> list[tuple[yaml.Node, Any]]:
    try:
        loader = _Strict(text)
        try:
            parsed = []
            while loader.check_node():
                node = loader.get_node()
                assert node is not None  # noqa: S101 - `check_node` guarantees it
                _refuse_alias_bomb(path, node)
                parsed.append((node, loader.construct_document(node)))
            return parsed
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
        raise ConfigurationError(f"{path}:{line}: is not text in UTF-8 ({error.reason}); restore it") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except (RecursionError, ValueError) as error:  # ValueError: too large a number in a directive or an escape
        problem = "is nested too deeply" if isinstance(error, RecursionError) else f"not valid YAML: {error}"
        raise ConfigurationError(f"{path}: {problem}; restore it") from None


def _refuse_alias_bomb(path: Path, root: yaml.Node) -> None:
    """Raises ConfigurationError if aliases make a document endless, or larger than `_MAX_NODES` nodes."""
    sizes: dict[int, int] = {}
    visited: set[int] = set()
    stack = [root]
    while stack:
        node = stack[-1]
        children = _children(node)
        missing = [child for child in children if id(child) not in sizes]
        if id(node) in visited and any(id(child) in visited and id(child) not in sizes for child in missing):
            raise ConfigurationError(f"{path}:{node.start_mark.line + 1}: refers to itself; write it out")
        visited.add(id(node))
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
        if sizes[id(node)] > _MAX_NODES:
            where = f"{path}:{node.start_mark.line + 1}"
            raise ConfigurationError(f"{where}: its aliases expand to too many parts; write it out")


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


_MESSAGES = {
    "extra_forbidden": "unknown key",
    "model_type": "must be a mapping of keys and values",
    "dict_type": "must be a mapping of keys and values",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
}


def _explain(path: Path, node: yaml.Node | None, problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    message = _MESSAGES.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    return f"{path}:{_line(node, problem['loc'])}: {where or 'file'}: {message}"


def _line(node: yaml.Node | None, location: tuple[Any, ...]) -> int:
    """The line of the part at `location`, or of its deepest ancestor in the file."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        child = _child(node, part)
        if child is None:
            break
        name_node, node = child
        line = name_node.start_mark.line + 1
    return line


def _child(node: yaml.Node | None, part: Any) -> tuple[yaml.Node, yaml.Node] | None:
    """The node with the name of `part` inside `node`, and the node with its value; None if there is none."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None
