"""Which Python code Monty is sure to run as CPython does: by its imports and its syntax. Pure.

What is listed here was tried against pydantic-monty 1.4.0. Code that uses anything else goes to a
CPython worker: an import that Monty lacks, inside a `try`, would change the result and say nothing.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import Final

__all__ = ["fits_monty"]

_LONGEST: Final = 4 * 1024
"""Characters that are parsed here, in at most a few milliseconds and once; longer code goes to a
worker unread."""
_DEEPEST: Final = 60
"""Brackets and indentation inside one another: the parser's stack is not the code's to use up."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MODULES: Final[dict[str, frozenset[str]]] = {
    name: _names(names)
    for name, names in {
        "json": "JSONDecodeError dumps loads",
        "re": "A ASCII DOTALL I IGNORECASE M MULTILINE NOFLAG S compile error escape findall"
        " finditer fullmatch match search split sub",
        "math": "acos asin atan atan2 ceil comb cos degrees dist e exp fabs factorial floor fmod"
        " fsum gcd hypot inf isclose isfinite isinf isnan isqrt lcm log log10 log1p log2 modf nan"
        " perm pi pow prod radians sin sqrt tan tau trunc",
        "datetime": "date datetime time timedelta timezone",
        "time": "gmtime localtime monotonic perf_counter sleep strftime time time_ns",
        "random": "choice choices gauss randint random randrange sample shuffle uniform",
        "collections": "Counter defaultdict deque",
        "itertools": "accumulate chain combinations groupby islice pairwise permutations product"
        " repeat starmap takewhile dropwhile zip_longest",
        "functools": "lru_cache partial reduce",
        "hashlib": "md5 sha1 sha224 sha256 sha384 sha512",
        "base64": "b16decode b16encode b32decode b32encode b64decode b64encode"
        " urlsafe_b64decode urlsafe_b64encode",
        "binascii": "hexlify unhexlify",
        "typing": "Annotated Any Callable Dict Final FrozenSet Iterable Iterator List Literal"
        " Mapping Optional Sequence Set Tuple Type Union",
        "copy": "copy deepcopy",
        "unicodedata": "category combining name normalize",
        "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
    }.items()
}

_BUILTINS: Final = _names(
    "ArithmeticError AssertionError AttributeError BaseException Exception False ImportError"
    " IndexError KeyError LookupError NameError None NotImplementedError OverflowError"
    " RecursionError RuntimeError StopIteration True TypeError UnicodeDecodeError ValueError"
    " ZeroDivisionError abs all any bin bool bytes chr dict divmod enumerate filter float"
    " frozenset hex int isinstance iter len list map max min next object oct ord pow print range"
    " repr reversed round set slice sorted str sum tuple zip __name__"
)

_METHODS: Final = _names(
    "add append appendleft astimezone capitalize casefold center clear copy count date decode"
    " difference digest discard elements encode end endswith extend find findall finditer format"
    " fromisoformat fromkeys fromtimestamp fullmatch get group groupdict groups hexdigest index"
    " insert intersection isalnum isalpha isascii isdecimal isdigit isdisjoint islower isnumeric"
    " isoformat isoweekday isspace issubset issuperset istitle isupper items join keys ljust lower"
    " lstrip match most_common now partition pop popitem popleft remove removeprefix removesuffix"
    " replace reverse rfind rindex rjust rpartition rsplit rstrip search setdefault sort span"
    " split splitlines start startswith strftime strip strptime sub swapcase time timestamp title"
    " total_seconds union update upper values weekday zfill"
)
"""Called on a value; as a value itself (`key=str.lower`) none of them is there."""

_FACTS: Final = _names(
    "args year month day hour minute second microsecond days seconds utc pattern"
)
"""Attributes that are no methods."""

_SYNTAX: Final = (
    *(ast.Module, ast.FunctionDef, ast.Return, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For),
    *(ast.While, ast.If, ast.Raise, ast.Try, ast.Assert, ast.Import, ast.ImportFrom, ast.Nonlocal),
    *(ast.Global, ast.Expr, ast.Pass, ast.Break, ast.Continue, ast.BoolOp, ast.NamedExpr),
    *(ast.BinOp, ast.UnaryOp, ast.Lambda, ast.IfExp, ast.Dict, ast.Set, ast.ListComp, ast.SetComp),
    *(ast.DictComp, ast.GeneratorExp, ast.Compare, ast.Call, ast.FormattedValue, ast.JoinedStr),
    *(ast.Constant, ast.Attribute, ast.Subscript, ast.Starred, ast.Name, ast.List, ast.Tuple),
    *(ast.Slice, ast.comprehension, ast.ExceptHandler, ast.arguments, ast.arg, ast.keyword),
    *(ast.alias, ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop),
)
_TEXT_CODECS: Final = frozenset({"utf-8", "utf8", "ascii"})


@lru_cache(maxsize=1024)
def fits_monty(source: str) -> bool:
    """Whether it may go to Monty. Code that does not parse may not: CPython's error is better."""
    if len(source) > _LONGEST or _depth(source) > _DEEPEST:
        return False
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return _Scan(tree).fits


def _depth(source: str) -> int:
    """How deep the parser could have to go, at most: it counts brackets in texts as well."""
    deepest = depth = run = longest_run = 0
    for letter in source:
        depth += (letter in "([{") - (letter in ")]}")
        deepest = max(deepest, depth)
        run = run + 1 if letter in "+-~ \t" else 0
        longest_run = max(longest_run, run)
    return max(deepest, longest_run // 4)


class _Scan:
    """One look at all nodes of a tree."""

    def __init__(self, tree: ast.Module) -> None:
        nodes = list(ast.walk(tree))
        self._modules: dict[str, str] = {}
        self._own = _names_given(nodes)
        self._called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        self.fits = all(map(self._import_fits, imports)) and all(map(self._fits, nodes))

    def _import_fits(self, node: ast.Import | ast.ImportFrom) -> bool:
        if isinstance(node, ast.ImportFrom):
            names = _MODULES.get(node.module or "", frozenset()) if not node.level else ()
            return all(alias.name in names for alias in node.names)
        for alias in node.names:
            self._modules[alias.asname or alias.name] = alias.name
        return all(alias.name in _MODULES for alias in node.names)

    def _fits(self, node: ast.AST) -> bool:
        if not isinstance(node, _SYNTAX):
            return False
        if isinstance(node, ast.Name):
            return node.id in self._own or node.id in _BUILTINS
        if isinstance(node, ast.FunctionDef):
            return not node.decorator_list
        if isinstance(node, ast.Attribute):
            return self._attribute_fits(node)
        if isinstance(node, ast.Call):
            return self._call_fits(node)
        if isinstance(node, ast.FormattedValue):
            return node.format_spec is None or _is_number_format(node.format_spec)
        if isinstance(node, ast.Raise):
            return node.cause is None
        return not isinstance(node, ast.Constant) or not isinstance(node.value, complex)

    def _attribute_fits(self, node: ast.Attribute) -> bool:
        if not isinstance(node.ctx, ast.Load):
            return False
        owner = node.value
        if isinstance(owner, ast.Name) and owner.id in self._modules:
            return node.attr in _MODULES[self._modules[owner.id]]
        if isinstance(owner, ast.Attribute) and node.attr == "utc":
            return True
        return node.attr in _FACTS or (id(node) in self._called and node.attr in _METHODS)

    def _call_fits(self, node: ast.Call) -> bool:
        function = node.func
        if not isinstance(function, ast.Attribute):
            return True
        owner = function.value
        if isinstance(owner, ast.Name) and owner.id in _BUILTINS and owner.id not in self._own:
            return owner.id == "dict" and function.attr == "fromkeys"
        if function.attr == "sub":
            return self._replacement_fits(node)
        if function.attr == "format":
            text = owner.value if isinstance(owner, ast.Constant) else ":"
            return isinstance(text, str) and ":" not in text
        if function.attr in ("encode", "decode"):
            return not node.keywords and all(map(_is_plain_codec, node.args[:1]))
        return True

    def _replacement_fits(self, node: ast.Call) -> bool:
        """`re.sub` takes no function here: only a literal text is sure to be none."""
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        at = 1 if isinstance(owner, ast.Name) and owner.id in self._modules else 0
        text = node.args[at] if len(node.args) > at else None
        return isinstance(text, ast.Constant | ast.JoinedStr) and not any(
            isinstance(argument, ast.Starred) for argument in node.args
        )


def _names_given(nodes: list[ast.AST]) -> frozenset[str]:
    """What the code itself gives a value to, anywhere."""
    given = set()
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            given.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ExceptHandler):
            given.add(node.name or "")
        elif isinstance(node, ast.arg):
            given.add(node.arg)
        elif isinstance(node, ast.alias):
            given.add(node.asname or node.name)
    return frozenset(given)


def _is_number_format(spec: ast.expr) -> bool:
    """Such as `.2f`: of other specifications Monty lets lists have some."""
    last = spec.values[-1] if isinstance(spec, ast.JoinedStr) and spec.values else None
    return isinstance(last, ast.Constant) and str(last.value)[-1:] in tuple("dfFeEgG%xXob")


def _is_plain_codec(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and str(node.value).lower() in _TEXT_CODECS
