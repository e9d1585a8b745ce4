"""Answers a request from the cache, or makes the answer once for all who ask the same meanwhile.

A failure that is the request's own is theirs too; of any other they try again, one after the other.

``protocols`` call ``cached`` with what their answer depends on, and with the coroutine function that makes it.
"""

from typing import Any, Awaitable, Callable, FrozenSet, NamedTuple, Optional

from neuronbert import __version__
from neuronbert.server.cache import Answer, Found, LocalCache, ResultCache, key_of
from neuronbert.server.exchange import Exchange
from neuronbert.server.failures import is_of_the_request
from neuronbert.server.models import Model
from neuronbert.server.routes import Reply
from neuronbert.server.settings import ServerSettings

Make = Callable[[], Awaitable[Reply]]


class CachedAnswer(NamedTuple):
    """An answer that is kept or may be, the model that gave it, and its age where it was not made for this request."""

    answer: Answer
    model: Model
    age_s: Optional[float] = None


def cache_of(settings: ServerSettings) -> "Optional[ResultCache[CachedAnswer]]":
    """The cache of a server with these settings; None where it has none."""
    if not settings.cache_bytes:
        return None
    local = LocalCache(settings.cache_bytes, settings.cache_ttl_s)
    if settings.cache_url is None:
        return ResultCache(local)
    # Only here: most servers have no use for the library.
    from neuronbert.server.shared_cache import SharedCache

    assert settings.cache_secret is not None
    shared = SharedCache(
        settings.cache_url, settings.cache_secret, ttl_s=settings.cache_ttl_s, most_bytes=local.most_bytes_each
    )
    return ResultCache(local, shared)


async def cached(exchange: Exchange, model: Model, form: str, asked: Any, make: Make) -> Reply:
    """What ``make`` answers, or answered to somebody who asked the same.

    form: the API, in whose form the answer is. asked: all that the answer depends on beside model and form, as msgpack
    can encode it; in particular the model's name where the answer has it.
    """
    cache: Optional[ResultCache[CachedAnswer]] = exchange.service.cache
    if cache is None:
        return await make()
    exchange.model = model
    directives = _cache_directives(exchange)
    key = None if "no-store" in directives else _key(exchange, model, form, asked)
    if key is None or "no-cache" in directives:
        cache.requests[model.name, "bypass"] += 1
        reply = await make()
        if key is not None:
            _keep(cache, key, reply, exchange, model)
        exchange.answer_headers.append((b"x-cache", b"BYPASS"))
        return reply
    made = await _found_or_made(cache, key, exchange, model, make)
    return _as_reply(exchange, made)


def _cache_directives(exchange: Exchange) -> FrozenSet[str]:
    """The directives of Cache-Control, without their arguments (RFC 9111, 5.2)."""
    lines = [value.decode("latin-1") for name, value in exchange.scope["headers"] if name == b"cache-control"]
    return frozenset(part.partition("=")[0].strip().lower() for line in lines for part in line.split(","))


def _key(exchange: Exchange, model: Model, form: str, asked: Any) -> Optional[bytes]:
    """Of two versions of ours the answers may differ, and of two variants of an artifact they do."""
    runner = model.runner
    tenant = exchange.service.clients.tenant(exchange.client)
    return key_of((__version__, model.digest, runner.name, runner.emulated, model.task, form, tenant), asked)


async def _found_or_made(
    cache: "ResultCache[CachedAnswer]", key: bytes, exchange: Exchange, model: Model, make: Make
) -> CachedAnswer:
    while True:
        found = cache.local.get(key)
        if found is not None:
            return _hit(cache, found, model)
        joined = cache.flights.join(key)
        if joined is None:
            return await cache.flights.lead(key, lambda: _shared_or_made(cache, key, exchange, model, make))
        try:
            made = await exchange.until(joined)
        except Exception as error:
            if is_of_the_request(error):
                cache.requests[model.name, "joined"] += 1
            raise
        if made is not None:
            cache.requests[model.name, "joined"] += 1
            return made if made.age_s is not None else made._replace(age_s=0.0)


async def _shared_or_made(
    cache: "ResultCache[CachedAnswer]", key: bytes, exchange: Exchange, model: Model, make: Make
) -> CachedAnswer:
    found = await cache.find_shared(key)
    if found is not None:
        return _hit(cache, found, model)
    cache.requests[model.name, "miss"] += 1
    return _keep(cache, key, await make(), exchange, model)


def _hit(cache: "ResultCache[CachedAnswer]", found: Found, model: Model) -> CachedAnswer:
    cache.requests[model.name, "hit"] += 1
    return CachedAnswer(found.answer, model, found.age_s)


def _keep(
    cache: "ResultCache[CachedAnswer]", key: bytes, reply: Reply, exchange: Exchange, model: Model
) -> CachedAnswer:
    """Keep an answer that ``model`` gave: one that was replaced meanwhile let its successor answer."""
    assert exchange.model is not None
    answer = Answer(reply.body, reply.content_type, (*reply.headers, *exchange.answer_headers))
    if exchange.model is model:
        cache.put(key, answer)
    return CachedAnswer(answer, exchange.model)


def _as_reply(exchange: Exchange, made: CachedAnswer) -> Reply:
    exchange.model = made.model
    answer, age_s = made.answer, made.age_s
    exchange.answer_headers = [(b"x-cache", b"MISS" if age_s is None else b"HIT")]
    if age_s is not None:
        exchange.answer_headers += [
            (b"age", b"%d" % age_s),
            (b"server-timing", f"total;dur={exchange.seconds * 1000:.3f}".encode()),
        ]
    return Reply(answer.body, answer.content_type, headers=answer.headers)
