"""Templates of images, in the dialect of pongo2, rendered by Jinja2's sandbox.

pongo2 is Django's language in Go. What differs from Jinja2 is translated first: arguments of filters after
a colon, `&&`, `||` and `!`, loops over mappings by two names, `forloop`, `empty`, `ifequal`. Templates come
with images, and so from strangers: they see plain data and no Python object's attributes, may call nothing
but `config_get` and their own macros, and cannot read other files. Who calls this sees to time and memory.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import ChainableUndefined, TemplateError, TemplateSyntaxError
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import SandboxedEnvironment

LONGEST = 1 << 20  # characters a template may come to

_STRING = r'"(?:\\.|[^"\\])*"|' + r"'(?:\\.|[^'\\])*'"
_TAG = re.compile(r"\{#.*?#\}" + rf"|\{{([%{{])-?((?:{_STRING}|[^\"'])*?)-?([%}}])\}}", re.DOTALL)
_TEXT = re.compile(_STRING)
_WORD = r"(?:\x00\d+\x00|[-+]?\d+(?:\.\d+)?|[A-Za-z_][\w.]*)"  # a string's place, a number, a name
_FILTER = re.compile(rf"\|\s*(\w+)\s*:\s*({_WORD})")
_FOR = re.compile(r"\s*for\s+(\w+)(?:\s*,\s*(\w+))?\s+in\s+(.+?)(\s+reversed)?(\s+sorted)?\s*", re.DOTALL)
_IFEQUAL = re.compile(rf"\s*if(not)?equal\s+({_WORD})\s+({_WORD})\s*")
_FORLOOP = re.compile(r"\bforloop\.(\w+)")
_LOOP = {
    "Counter": "index", "Counter0": "index0", "Revcounter": "revindex", "Revcounter0": "revindex0",
    "First": "first", "Last": "last",
}  # fmt: skip
_PLAIN = {"empty": " else ", "endifequal": " endif ", "endifnotequal": " endif "}
_REACHING = ("attr", "format", "groupby", "map", "rejectattr", "selectattr")  # into objects; not pongo2's
_OTHER_FILES = ("extends", "from", "import", "include", "ssi")


class TemplateFailed(ValueError):
    """What is wrong with a template, for users."""


class _Sandbox(SandboxedEnvironment):
    """Names lead to values of mappings and lists; a loop's own are the only attributes there are."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext):
            return super().getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, ChainableUndefined):
            return obj
        if isinstance(obj, Mapping | list | tuple | str):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                pass
        return self.undefined(obj=obj, name=argument)

    def is_safe_callable(self, obj: Any) -> bool:
        return isinstance(obj, Macro) or getattr(obj, "offered", False) is True


def render(text: str, context: Mapping[str, Any]) -> str:
    """Raises TemplateFailed. `context["config"]` is what `config_get` looks into."""
    config = context.get("config", {})

    def config_get(name: object = "", default: object = "") -> object:
        return config.get(name, default)

    environment = _environment()
    names = {**context, "config_get": _offered(config_get)}
    try:
        template = environment.from_string(translated(text))
        found, size = [], 0
        for part in template.generate(names):
            size += len(part)
            if size > LONGEST:
                raise TemplateFailed(f"it comes to more than {LONGEST} characters")
            found.append(part)
    except TemplateSyntaxError as wrong:
        raise TemplateFailed(f"line {wrong.lineno}: {wrong.message}") from None
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError) as wrong:
        raise TemplateFailed(str(wrong) or type(wrong).__name__) from None
    except (RecursionError, MemoryError) as wrong:
        raise TemplateFailed(f"it takes too much: {type(wrong).__name__}") from None
    return "".join(found)


def _environment() -> SandboxedEnvironment:
    environment = _Sandbox(
        undefined=ChainableUndefined,
        keep_trailing_newline=True,
        finalize=lambda value: "" if value is None else value,
    )
    environment.globals = {"_each": _offered(_each), "_pairs": _offered(_pairs)}
    for name in _REACHING:
        del environment.filters[name]
    environment.filters |= FILTERS
    return environment


def _offered(call: Callable[..., Any]) -> Callable[..., Any]:
    call.offered = True  # type: ignore[attr-defined]
    return call


def translated(text: str) -> str:
    """A template of pongo2 as one of Jinja2. Raises TemplateFailed for tags that read other files."""
    return _TAG.sub(_tag, text)


def _tag(found: re.Match[str]) -> str:
    whole, kind, body = found[0], found[1], found[2]
    if kind is None:
        return ""  # a comment
    strings: list[str] = []

    def put_away(string: re.Match[str]) -> str:
        strings.append(string[0])
        return f"\0{len(strings) - 1}\0"

    code = _TEXT.sub(put_away, body.replace("\0", ""))
    code = code.replace("&&", " and ").replace("||", " or ")
    code = re.sub(r"!(?!=)", " not ", code)
    code = _FORLOOP.sub(lambda name: f"loop.{_LOOP.get(name[1], name[1])}", code)
    code = _FILTER.sub(r"|\1(\2)", code)
    if kind == "%":
        code = _statement(code)
    code = re.sub(r"\0(\d+)\0", lambda place: strings[int(place[1])], code)
    start = whole.index(body, 2) if body else 2
    return whole[:start] + code + whole[start + len(body) :]


def _statement(code: str) -> str:
    words = code.split()
    if words and words[0] in _OTHER_FILES:
        raise TemplateFailed(f'"{words[0]}" is not allowed: a template reads no other files')
    if loop := _FOR.fullmatch(code):
        names = f"{loop[1]}, {loop[2]}" if loop[2] else loop[1]
        items = "_pairs" if loop[2] else "_each"
        return f" for {names} in {items}({loop[3]}, {bool(loop[4])}, {bool(loop[5])}) "
    if equal := _IFEQUAL.fullmatch(code):
        return f" if {equal[2]} {'!=' if equal[1] else '=='} {equal[3]} "
    return _PLAIN.get(code.strip(), code)


def _each(value: Any, backwards: bool, in_order: bool) -> list[Any]:
    """What a loop with one name goes through: keys of a mapping, by name."""
    items = sorted(value) if isinstance(value, Mapping) else list(value or ())
    if in_order:
        items.sort(key=lambda item: (str(type(item)), item))
    return items[::-1] if backwards else items


def _pairs(value: Any, backwards: bool, in_order: bool) -> list[Any]:
    """What a loop with two names goes through: keys and values of a mapping, by key."""
    if not isinstance(value, Mapping):
        return [*enumerate(_each(value, backwards, in_order))]
    return [(key, value[key]) for key in _each(value, backwards, in_order)]


def _default(value: Any, other: Any = "") -> Any:
    return value if value else other


def _add(value: Any, other: Any) -> Any:
    both = isinstance(value, int | float) and isinstance(other, int | float)
    return value + other if both else f"{value}{other}"


def _integer(value: Any) -> int:
    try:
        return int(float(value))
    except ValueError:
        return 0


def _yesno(value: Any, words: str = "yes,no,maybe") -> str:
    yes, no, *maybe = words.split(",")
    if value is None:
        return maybe[0] if maybe else no
    return yes if value else no


def _slice(value: Any, ends: str) -> Any:
    first, _, last = ends.partition(":")
    return value[int(first) if first else None : int(last) if last else None]


def _truncatechars(value: Any, length: int) -> str:
    text = str(value)
    return text if len(text) <= length else text[: max(0, length - 3)] + "..."


FILTERS: Mapping[str, Callable[..., Any]] = {
    "add": _add,
    "addslashes": lambda value: re.sub(r"([\\\"'])", r"\\\1", str(value)),
    "capfirst": lambda value: str(value)[:1].upper() + str(value)[1:],
    "cut": lambda value, part: str(value).replace(str(part), ""),
    "default": _default,
    "default_if_none": lambda value, other: other if value is None else value,
    "divisibleby": lambda value, by: value % by == 0,
    "integer": _integer,
    "length_is": lambda value, length: len(value) == length,
    "ljust": lambda value, width: str(value).ljust(width),
    "rjust": lambda value, width: str(value).rjust(width),
    "slice": _slice,
    "split": lambda value, by: str(value).split(by),
    "stringformat": lambda value, form: form % (value,),
    "truncatechars": _truncatechars,
    "yesno": _yesno,
}


def render_all(jobs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of {"name", "text", "context"} each; `{"texts": […]}`, or `{"error": "…"}` for the first that fails."""
    texts = []
    for job in jobs:
        try:
            texts.append(render(job["text"], job["context"]))
        except TemplateFailed as wrong:
            return {"error": f'Template "{job["name"]}": {wrong}'}
    return {"texts": texts}
