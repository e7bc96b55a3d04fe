"""Which code goes to Monty, and that it does there what CPython does."""

from __future__ import annotations

from typing import Any

import pytest

from server.sandbox import Sandbox, monty
from server.sandbox.scan import fits_monty
from tests.server.sandbox.watching import options, outcome

FITS = {
    "plain": "def main(a: int, b: str) -> dict:\n    return {'x': f'{a}{b!r}'}",
    "json": "import json\ndef main(a):\n    try:\n        return {'x': json.loads(a)}\n"
    "    except json.JSONDecodeError as e:\n        return {'x': str(e)}",
    "import inside": "def main(a):\n    import re\n    return {'x': re.findall(r'\\d+', a)}",
    "from import": "from datetime import datetime, timedelta\ndef main(a):\n"
    "    return {'x': (datetime(2024, 1, 2) + timedelta(days=1)).strftime('%Y-%m-%d')}",
    "comprehensions": "def main(a):\n    return {'x': [c for c in a if c.isdigit()],"
    " 'y': {c: a.count(c) for c in sorted(set(a))}, 'z': sum(1 for _ in a)}",
    "walrus, lambda, nested": "def main(a):\n    def f(s):\n        return s.strip()\n"
    "    if (n := len(a)) > 1:\n        return {'x': sorted(a, key=lambda c: -ord(c)), 'n': n}\n"
    "    return {'x': f(a)}",
    "sub with text": "import re\ndef main(a):\n    return {'x': re.sub(r'\\s+', ' ', a)}",
    "utc": "import datetime\ndef main(a):\n"
    "    return {'x': str(datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc))}",
    "types": "from typing import List, Dict, Any\ndef main(a: List[Dict[str, Any]]) -> dict:\n"
    "    return {'x': isinstance(a, (list, tuple))}",
    "hash": "import hashlib, base64\ndef main(a):\n"
    "    return {'x': base64.b64encode(hashlib.md5(a.encode('utf-8')).digest()).decode()}",
    "counter": "from collections import Counter\ndef main(a):\n"
    "    return {'x': Counter(a).most_common(1)}",
    "numbers as text": "def main(a):\n"
    "    return {'x': f'{a:.2f} {a:,d}', 'y': '{}{}'.format(a, 1)}",
    "main guard": "def main(a):\n    return {'x': 1}\nif __name__ == '__main__':\n    pass",
}

LEFT_TO_CPYTHON = {
    "other module": "import urllib.parse\ndef main(a): return {}",
    "module in a try": "def main(a):\n    try:\n        import requests\n    except ImportError:\n"
    "        return {'x': 1}\n    return {'x': 2}",
    "missing name": "from collections import OrderedDict\ndef main(a): return {}",
    "missing attribute": "import re\ndef main(a): return {'x': re.subn('a', 'b', a)}",
    "star": "from json import *\ndef main(a): return {}",
    "class": "class A: pass\ndef main(a): return {}",
    "yield": "def g():\n    yield 1\ndef main(a): return {'x': list(g())}",
    "async": "async def f(): pass\ndef main(a): return {}",
    "del": "def main(a):\n    x = {}\n    del x\n    return {}",
    "with": "def main(a):\n    with open(a) as f: return {}",
    "decorator": "import functools\n@functools.lru_cache\ndef f(): pass\ndef main(a): return {}",
    "sub with function": "import re\ndef main(a): return {'x': re.sub('a', lambda m: 'b', a)}",
    "sub with name": "import re\ndef main(a): return {'x': re.sub('a', a, a)}",
    "pattern.sub with name": "import re\ndef main(a): return {'x': re.compile('a').sub(a, 'a')}",
    "method as value": "def main(a): return {'x': list(map(str.strip, a))}",
    "class method": "def main(a): return {'x': int.from_bytes(b'a', 'big')}",
    "encoding": "def main(a): return {'x': len(a.encode('gbk'))}",
    "dunder": "def main(a): return {'x': a.__class__.__name__}",
    "globals": "def main(a): return {'x': str(globals())}",
    "width of anything": "def main(a): return {'x': f'{a:>5}'}",
    "format with width": "def main(a): return {'x': '{:>5}'.format(a)}",
    "cause": "def main(a):\n    raise ValueError('x') from None",
    "unknown name": "def main(a): return {'x': undefined}",
    "match": "def main(a):\n    match a:\n        case 1: return {}",
    "broken": "def main(:",
    "long": "def main(a): return {}\n" + "# x\n" * 20000,
    "deep": "def main(a): return " + "(" * 80 + "1" + ")" * 80,
    "signs": "def main(a): return {'x': " + "-" * 20000 + "1}",
}


@pytest.mark.parametrize("name", FITS)
def test_what_monty_surely_runs_goes_there(name: str) -> None:
    """The everyday code of code nodes."""
    assert fits_monty(FITS[name])


@pytest.mark.parametrize("name", LEFT_TO_CPYTHON)
def test_everything_else_does_not(name: str) -> None:
    """An import or a construct that Monty lacks, or that cannot be told."""
    assert not fits_monty(LEFT_TO_CPYTHON[name])


needs_monty = pytest.mark.skipif(not monty.is_installed(), reason="pydantic-monty is not here")


@needs_monty
@pytest.mark.slow
async def test_both_runners_agree() -> None:
    """Same results and same error texts, whichever runs it."""
    async with Sandbox(options()) as cpython, Sandbox(options(monty=True)) as both:
        for name, source in FITS.items():
            for argument in ("a1 b22", "", [1, "x"], {"k": None}, 7):
                arguments: dict[str, Any] = {"a": argument}
                if "b: str" in source:
                    arguments["b"] = "é"
                outcomes = [
                    await outcome(one.run("python3", source, arguments)) for one in (cpython, both)
                ]
                assert outcomes[0] == outcomes[1], name
        assert both.busy == cpython.busy == 0
