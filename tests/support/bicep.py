"""Reads the part of Bicep that examples/deploy uses. No compiler: it knows syntax and names, and nothing of types."""

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_TOKEN = re.compile(
    r"(?P<comment>//[^\n]*)|(?P<string>'(?:\$\{[^}]*\}|[^'\n])*')|(?P<number>\d+)|(?P<line>\n)|(?P<space>[ \t]+)"
    r"|(?P<code>[A-Za-z][\w.]*(?:\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)(?:\.\w+)*)?)|(?P<mark>[{}\[\]:,=@])"
)
_NAME = re.compile(r"(?<![\w.'])[a-z]\w*(?![\w(])")


class Code(NamedTuple):
    """An expression, as it is written."""

    text: str


class Token(NamedTuple):
    kind: str
    text: str


@dataclass
class Template:
    """What a file declares."""

    parameters: dict[str, Any] = field(default_factory=dict)
    """With their defaults; None if there is none."""
    variables: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """By symbol: type with version, and what is said of it."""
    existing: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    """Every name that an expression begins with."""


def parse(text: str) -> Template:
    """Return what a file declares. Raises ValueError where it is not written as Bicep is."""
    return _Parser(text).template()


def _tokens(text: str) -> list[Token]:
    tokens, position = [], 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ValueError(f"line {text.count(chr(10), 0, position) + 1}: {text[position : position + 20]!r}")
        position = found.end()
        if found.lastgroup not in {"comment", "space"}:
            tokens.append(Token(str(found.lastgroup), found[0]))
    return tokens


class _Parser:
    def __init__(self, text: str) -> None:
        self._rest = _tokens(text)[::-1]
        self._template = Template()

    def _next(self) -> Token:
        return self._rest.pop()

    def _take(self, text: str) -> None:
        token = self._next()
        if token.text != text:
            raise ValueError(f"{token.text!r} stands where {text!r} should")

    def template(self) -> Template:
        while self._rest:
            if (token := self._next()).kind != "line":
                self._declaration(token.text, self._next().text)
        return self._template

    def _declaration(self, kind: str, name: str) -> None:
        match kind:
            case "param":
                self._next()  # its type
                has_default = self._rest[-1].text == "="
                self._template.parameters[name] = self._assigned() if has_default else None
            case "var":
                self._template.variables[name] = self._assigned()
            case "resource":
                of = self._next().text.strip("'")
                if self._rest[-1].text == "existing":
                    self._next()
                    self._template.existing.add(name)
                self._template.resources[name] = (of, self._assigned())
            case _:
                raise ValueError(f"{kind!r} declares nothing")
        self._take("\n")

    def _assigned(self) -> Any:
        self._take("=")
        return self._value()

    def _value(self) -> Any:
        kind, text = self._next()
        if text in "{[":
            return self._object() if text == "{" else self._array()
        if kind == "number":
            return int(text)
        if kind not in {"string", "code"}:
            raise ValueError(f"{text!r} is no value")
        code = " ".join(re.findall(r"\$\{([^}]*)\}", text)) if kind == "string" else text
        self._template.used |= set(_NAME.findall(re.sub(r"'[^']*'", "", code)))
        return text.strip("'") if kind == "string" else Code(text)

    def _object(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self._at_end("}"):
            key = self._next().text
            if key.startswith("'${"):
                self._template.used |= set(_NAME.findall(key[3:]))
            self._take(":")
            if key in found:
                raise ValueError(f"{key!r} is said twice")
            found[key] = self._value()
        return found

    def _array(self) -> list[Any]:
        found = []
        while not self._at_end("]"):
            found.append(self._value())
        return found

    def _at_end(self, mark: str) -> bool:
        while self._rest[-1].text in {"\n", ","}:
            self._next()
        if self._rest[-1].text != mark:
            return False
        self._take(mark)
        return True
