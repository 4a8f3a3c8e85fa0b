"""The two dialects of the public API: the oldest paths and the versioned ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from cluster.errors import EnckeError
from web.codec.params import callback_param, parse_query
from web.codec.replies import Answer, Api, compatible, failure, oldest
from web.serving.request import Request


class Dialect(msgspec.Struct, frozen=True):
    """Names of parameters, and the shape of answers."""

    api: Api
    key: str
    transport: str
    mid: str
    callback: str
    token: str = "token"

    async def answer(self, request: Request, find: Callable[[Mapping[str, str]], Awaitable[bytes]]) -> Answer:
        """Answer with the data that `find` makes of the parameters, as JSONP where a callback is named.

        A callback that is none is answered as a parameter error, without it.

        Args:
            find: gives escaped JSON, empty for none; may raise EnckeError.
        """
        params = parse_query(request.query)
        try:
            callback = callback_param(params.get(self.callback, ""))
        except EnckeError as error:
            return failure(error, self.api)
        try:
            data = await find(params)
        except EnckeError as error:
            return failure(error, self.api, callback)
        make = oldest if self.api is Api.OLDEST else compatible
        return make(data, callback=callback)


OLDEST = Dialect(Api.OLDEST, key="key", transport="proto", mid="mid", callback="callback")
COMPATIBLE = Dialect(Api.COMPATIBLE, key="k", transport="p", mid="m", callback="cb")
