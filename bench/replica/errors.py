"""What the replica refuses, in the shape vLLM gives its errors."""

from __future__ import annotations

from http import HTTPStatus
from math import ceil

import msgspec


class RequestError(Exception):
    """A request that cannot be served, with its HTTP answer."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        kind: str | None = None,
        param: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        """`kind` is the error's `type` (by default the status phrase), `param` the field."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind or status.phrase
        self.param = param
        self.headers = headers

    def body(self) -> bytes:
        """The JSON document for it; `code` is the status, as vLLM has it."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.kind,
                    "param": self.param,
                    "code": self.status.value,
                }
            }
        )


def bad_value(message: str, param: str) -> RequestError:
    """400 for a field whose value is well formed but cannot be used."""
    return RequestError(HTTPStatus.BAD_REQUEST, message, kind="BadRequestError", param=param)


def model_not_found(model: str) -> RequestError:
    """404 for a model that this replica does not serve."""
    message = f"The model `{model}` does not exist."
    return RequestError(HTTPStatus.NOT_FOUND, message, kind="NotFoundError", param="model")


def context_exceeded(max_model_len: int, output_tokens: int) -> RequestError:
    """400 for a prompt that leaves no room for `output_tokens`.

    Clients read the numbers out of this sentence, so it keeps vLLM's form. The prompt was only
    counted as far as needed to know that it does not fit, hence "at least".
    """
    prompt_tokens = max_model_len - output_tokens + 1
    return bad_value(
        f"This model's maximum context length is {max_model_len} tokens. However, you requested "
        f"{output_tokens} output tokens and your prompt contains at least {prompt_tokens} input "
        f"tokens, for a total of at least {max_model_len + 1} tokens. Please reduce the length of "
        f"the input prompt or the number of requested output tokens.",
        "input_tokens",
    )


def simulated_error(status: HTTPStatus) -> RequestError:
    """An error that was asked for; a client may try again in a second where the status says so."""
    later = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    kind = "InternalServerError" if status == HTTPStatus.INTERNAL_SERVER_ERROR else None
    message = "This error is simulated: a share of requests fails by error_rate."
    headers = ((b"retry-after", b"1"),) if later else ()
    return RequestError(status, message, kind=kind, headers=headers)


def engine_down(seconds: float) -> RequestError:
    """503 for as long as a crashed engine is not up again."""
    message = "The simulated engine crashed and is not up again yet."
    headers = ((b"retry-after", str(max(1, ceil(seconds))).encode()),)
    return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, message, headers=headers)
