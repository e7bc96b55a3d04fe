"""The page's style: system fonts, and colours for light and dark."""

from __future__ import annotations

from typing import Final

__all__ = ["STYLE"]

_SERIES: Final = (*((f"s{number}", f"c{number}") for number in range(6)), ("bad", "bad"))

STYLE: Final = """
:root {
  color-scheme: light dark;
  --ink: #1d232b; --soft: #5b6672; --ground: #fff; --rule: #dfe3e8; --warn: #8a4b00;
  --c0: #1f6fb4; --c1: #c25a12; --c2: #23825a; --c3: #8c4bb0; --c4: #86690a; --c5: #4d5a66;
  --bad: #c0263a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ec; --soft: #9aa6b2; --ground: #14181d; --rule: #303841; --warn: #ffb866;
    --c0: #6db3f2; --c1: #f59a5b; --c2: #5fc795; --c3: #c794e8; --c4: #dcc04e; --c5: #aab6c2;
    --bad: #ff7a88;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem; max-width: 80rem;
  color: var(--ink); background: var(--ground); font: 15px/1.45 system-ui, sans-serif;
}
h1 { font-size: 1.5rem; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; border-bottom: 1px solid var(--rule); }
p { margin: .4rem 0; overflow-wrap: anywhere; }
.none { color: var(--soft); }
.warn { color: var(--warn); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: .2rem 0; }
th, td {
  padding: .22rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule);
}
th:first-child, td:first-child { text-align: left; }
.identity th { vertical-align: top; }
.identity td { white-space: pre-wrap; overflow-wrap: anywhere; text-align: left; }
.charts {
  display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
}
svg { width: 100%; height: auto; border: 1px solid var(--rule); border-radius: 4px; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .title { font-weight: 600; font-size: 13px; }
svg .tick { fill: var(--soft); font-size: 11px; }
svg .mid { text-anchor: middle; }
svg .end { text-anchor: end; }
.grid { stroke: var(--rule); fill: none; }
.axis { stroke: var(--soft); fill: none; }
.line { fill: none; stroke-width: 2; }
.dot { fill: none; stroke-width: 3; stroke-linecap: round; opacity: .65; }
.dot.big { stroke-width: 7; opacity: 1; }
.bar { stroke: none; opacity: .85; }
""" + "".join(
    f".line.{name}, .dot.{name} {{ stroke: var(--{colour}); }}\n"
    f".bar.{name} {{ fill: var(--{colour}); }}\n"
    for name, colour in _SERIES
)
