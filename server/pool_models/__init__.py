"""Calls of the models served here, as the nodes of a run make them.

The same way as a relayed call: through the pool's line, its policy, its retries and its chain of
fallbacks, in the tier of the run; but the answer is read here instead of passed on.

    models.py      PoolModels: `services.Models` over `balancer.dispatch`
    parameters.py  an export's completion_params as fields of OpenAI's API
    body.py        the body of a request
    answer.py      what a stream of events, or a whole answer, says
    reading.py     the client's side of a call: events in, text out
    failures.py    failures in the words that nodes show
    learned.py     what pools were found not to take
"""

from __future__ import annotations

from server.pool_models.models import PoolModels

__all__ = ["PoolModels"]
