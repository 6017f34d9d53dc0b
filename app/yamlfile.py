"""Reads our own YAML files strictly: what is wrong is named with file, line, key and remedy."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from app.errors import ConfigurationError

Shape = TypeVar("Shape", bound=BaseModel)


class _Strict(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys in silence, and a day that does not exist is a bare ValueError."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value} stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None


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


def _parsed(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    try:
        loader = _Strict(text)
        try:
            node = loader.get_single_node()
            return node, loader.construct_document(node) if node else None
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        raise ConfigurationError(f"{path}: is not text in UTF-8 ({error.reason}); restore it") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: is nested too deep to be read; restore it") from None


def _explain(path: Path, node: yaml.Node | None, problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    message = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
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
