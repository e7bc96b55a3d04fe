"""A run's timeline as one SVG picture: what ran when, what it waited for, and what took so long.

    spans = read(moments)       # moments: (unix time, event), as a sink took them
    picture = draw(spans)       # a whole SVG document

`reading` turns events into spans, `path` finds what the run's length came from, `svg` draws.
Pure: no I/O, no clock.
"""

from __future__ import annotations

from server.timeline.reading import Moment as Moment
from server.timeline.reading import RunSpan as RunSpan
from server.timeline.reading import read as read
from server.timeline.svg import draw as draw
