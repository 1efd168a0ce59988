"""A pipeline over a WebSocket: one process keeps it, others use it from anywhere.

async with transport.serve_pipeline(await SqlitePipeline.open("events.db")) as server:
    async with await transport.WebSocketPipeline.open(server.address) as pipeline: ...

A request is `[number, method, argument ...]`, its answer `[number, result]`, or
`[number, nil, error, argument ...]`; both MessagePack, several under way at once. The
address ends in a secret, which is shown when the connection is made and lets whoever
has it publish and read everything. What is in entries is signed; who may read it is not
checked here.
"""

import asyncio
import base64
import binascii
import contextlib
import functools
import hmac
import http
import itertools
import logging
import os
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import msgspec
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from syncengine import errors, limits
from syncengine.errors import (
    Closed,
    Compacted,
    Fenced,
    Invalid,
    OutcomeUnknown,
    PipelineError,
    PositionConflict,
    SyncError,
)
from syncengine.ids import check_partitions
from syncengine.replication.host import Signal
from syncengine.storage.pipeline.contract import (
    ENTRY_BYTES_MAX,
    TOLD_WAITING_MAX,
    Ack,
    Entry,
    Pipeline,
    Token,
    owner_name,
)
from transport.guard import is_loopback
from transport.websocket import OPTIONS

log = logging.getLogger("syncengine")

SUBPROTOCOL = Subprotocol("sync.pipeline.v1")

SECRET_BYTES = 16

# One answer: what is read beyond this is asked for again.
ANSWER_BYTES_MAX = 4 * ENTRY_BYTES_MAX

# An entry, its names, and room for how it is said.
MESSAGE_BYTES_MAX = ANSWER_BYTES_MAX + ENTRY_BYTES_MAX + 64 * limits.KIB

# How long somebody who follows waits for something new before he asks again: proxies
# forget connections that are silent for longer.
WAIT_SECONDS = 20.0

# How long a request may take: a disk that syncs, behind a network that is slow.
ANSWER_SECONDS = 30.0

# Who listens over one connection, for as long as that lasts.
LISTENERS_MAX = 64

# Requests of one connection that are under way: who sends more waits.
REQUESTS_MAX = 256

_OPTIONS: dict[str, Any] = {
    **OPTIONS,
    "max_size": MESSAGE_BYTES_MAX,
    "subprotocols": [SUBPROTOCOL],
    "ping_interval": 20,
    "ping_timeout": 20,
}

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

_Answer = TypeVar("_Answer")

# What each answer is: a server that answers otherwise is none.
_GREETING = msgspec.msgpack.Decoder(tuple[int, bytes]).decode
_ANSWER = msgspec.msgpack.Decoder(list[Any]).decode


def _reads(type_: type[_Answer]) -> Callable[[Any], _Answer]:
    return functools.partial(msgspec.convert, type=type_)


_LOST = "the connection to the pipeline was lost"

_ACK = _reads(Ack)
_TOKEN = _reads(Token)
_ENTRIES = _reads(tuple[list[Entry], bool])
_BOUNDS = _reads(tuple[int, int])
_TOLD = _reads(list[tuple[bytes, bytes]])
_NOTHING = _reads(type(None))


class PipelineServer:
    """A pipeline that others reach at `address`."""

    def __init__(
        self,
        pipeline: Pipeline,
        bind: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        secret: bytes,
    ):
        if tls is None and not is_loopback(bind):
            raise Invalid(
                f"{bind} is not loopback and there is no TLS, which hides the secret "
                "and what is read: give a certificate (tls=...)"
            )
        self._pipeline = pipeline
        self._bind, self._port, self._tls = bind, port, tls
        self._secret = base64.b32encode(secret).decode().rstrip("=").lower()
        self._server: WebSocketServer | None = None

    @property
    def address(self) -> str:
        """What `WebSocketPipeline.open` takes: its last part is a secret."""
        assert self._server is not None, "it is used with `async with`"
        port = next(iter(self._server.sockets)).getsockname()[1]
        scheme = "wss" if self._tls else "ws"
        host = f"[{self._bind}]" if ":" in self._bind else self._bind
        return f"{scheme}://{host}:{port}/#{self._secret}"

    async def __aenter__(self) -> "PipelineServer":
        self._server = await serve(
            self._serve, self._bind, self._port, ssl=self._tls,
            process_request=self._check, **_OPTIONS,
        )  # fmt: skip
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def _check(self, _: ServerConnection, request: Request) -> Response | None:
        shown = request.headers.get("Authorization", "")
        if hmac.compare_digest(shown.encode(), f"Bearer {self._secret}".encode()):
            return None
        return Response(http.HTTPStatus.UNAUTHORIZED, "", request.headers.__class__())

    async def _serve(self, socket: ServerConnection) -> None:
        room = asyncio.Semaphore(REQUESTS_MAX)
        tasks: set[asyncio.Task[None]] = set()
        caller = _Caller(self._pipeline, tasks)
        try:
            await socket.send(_encode([self._pipeline.partitions, self._pipeline.id]))
            async for raw in socket:
                await room.acquire()
                task = asyncio.create_task(self._answer(socket, caller, raw))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(lambda _: room.release())
        except ConnectionClosed:
            pass
        finally:
            for task in tasks:
                task.cancel()

    async def _answer(
        self, socket: ServerConnection, caller: "_Caller", raw: str | bytes
    ) -> None:
        try:
            number, method, *arguments = _decode(raw)  # type: ignore[arg-type]  # text is refused
            do = _Caller.METHODS[method]
        except (msgspec.DecodeError, TypeError, ValueError, KeyError):
            await socket.close(1003, "that is no request")
            return
        try:
            answer = [number, await do(caller, *arguments)]
        except SyncError as error:
            answer = [number, None, *_told(error)]
        except (TypeError, ValueError, OverflowError) as error:
            answer = [number, None, "Invalid", f"{method}: {error}"]
        except Exception:  # who asked is told in any case, or waits for ever
            log.exception("%s failed", method)
            answer = [number, None, "PipelineError", f"{method} failed there"]
        with contextlib.suppress(ConnectionClosed):
            await socket.send(_encode(answer))


class _Caller:
    """What one connection may ask for."""

    def __init__(self, pipeline: Pipeline, tasks: "set[asyncio.Task[None]]"):
        self._pipeline = pipeline
        self._tasks = tasks
        self._told: dict[tuple[int, int], deque[tuple[bytes, bytes]]] = {}
        """By partition and listener"""
        self._came = Signal()

    async def _publish(
        self, partition: int, namespace: bytes, id: bytes, payload: bytes,
        expect: int | None, token: list[int] | None,
    ) -> Ack:  # fmt: skip
        held = None if token is None else Token(*token)
        return await self._pipeline.publish(
            partition, namespace, id, payload, expect=expect, token=held
        )

    async def _take(self, partition: int, owner: str) -> Token:
        return await self._pipeline.take(partition, owner)

    async def _read(
        self, partition: int, after: int, limit: int, namespace: bytes | None
    ) -> list[Any]:
        """Return [entries, whether that is all there is up to the limit]."""
        found = await self._pipeline.read(partition, after, limit, namespace)
        size = 0
        for count, entry in enumerate(found):
            size += len(entry.payload)
            if size > ANSWER_BYTES_MAX and count:
                return [found[:count], False]
        return [found, True]

    async def _wait(self, partition: int, after: int) -> None:
        """Wait until there may be something behind a position."""
        following = self._pipeline.follow(partition, after)
        async with contextlib.aclosing(following):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS):
                    await anext(following, None)

    async def _tell(self, partition: int, namespace: bytes, payload: bytes) -> None:
        await self._pipeline.tell(partition, namespace, payload)

    async def _hear(self, partition: int, listener: int) -> list[tuple[bytes, bytes]]:
        """Return what was told since a listener asked before, from his first time on;
        wait for some."""
        name = partition, listener
        if name not in self._told:
            self._pipeline.check_partition(partition)
            if len(self._told) >= LISTENERS_MAX:
                raise Invalid(
                    f"one connection listens {LISTENERS_MAX} times", bound=LISTENERS_MAX
                )
            self._told[name] = deque(maxlen=TOLD_WAITING_MAX)
            listening = asyncio.create_task(self._listen(partition, self._told[name]))
            self._tasks.add(listening)  # it ends with the connection
            return []
        told = self._told[name]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_SECONDS):
                while not told:
                    await self._came.wait()
        found = list(told)
        told.clear()
        return found

    async def _listen(self, partition: int, told: deque[tuple[bytes, bytes]]) -> None:
        listening = self._pipeline.listen(partition)
        async with contextlib.aclosing(listening):
            async for what in listening:
                told.append(what)
                self._came.set()

    async def _bounds(self, partition: int) -> tuple[int, int]:
        return await self._pipeline.bounds(partition)

    async def _truncate(self, partition: int, before: int) -> None:
        await self._pipeline.truncate(partition, before)

    METHODS: ClassVar[dict[str, Callable[..., Awaitable[Any]]]] = {
        "publish": _publish, "take": _take, "read": _read, "wait": _wait,
        "bounds": _bounds, "truncate": _truncate, "tell": _tell, "hear": _hear,
    }  # fmt: skip


class WebSocketPipeline(Pipeline):
    """A pipeline that a `PipelineServer` keeps. Dials again by itself: while that does
    not work, its methods raise `PipelineError`."""

    def __init__(self, url: str, secret: str, tls: ssl.SSLContext | None):
        self._url, self._secret, self._tls = url, secret, tls
        self._socket: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._dialling = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[list[Any]]] = {}
        self._numbers = itertools.count()
        self._is_closed = False

    @classmethod
    async def open(
        cls, address: str, tls: ssl.SSLContext | None = None
    ) -> "WebSocketPipeline":
        """Return the pipeline at an address. Raises `Invalid` for what is none,
        `PipelineError` when it is not reached, or the secret is another."""
        url, _, secret = address.partition("/#")
        try:
            raw = base64.b32decode(secret.upper() + "=" * (-len(secret) % 8))
        except (binascii.Error, ValueError):
            raw = b""
        if not url.startswith(("ws://", "wss://")) or len(raw) != SECRET_BYTES:
            raise Invalid(
                "a pipeline's address is ws://host:port/#secret, as its server gives it"
            )
        pipeline = cls(url, secret, tls)
        await pipeline._connected()
        return pipeline

    # --- the contract -----------------------------------------------------------------

    async def publish(
        self,
        partition: int,
        namespace: bytes,
        id: bytes,
        payload: bytes,
        *,
        expect: int | None = None,
        token: Token | None = None,
    ) -> Ack:
        self._check_open()
        self.check_entry(partition, namespace, id, payload, expect, token)
        return await self._ask(
            _ACK, "publish", partition, namespace, id, payload, expect, token
        )

    async def take(self, partition: int, owner: str) -> Token:
        self._check_open()
        self.check_partition(partition)
        owner_name(owner)
        return await self._ask(_TOKEN, "take", partition, owner)

    async def read(
        self,
        partition: int,
        after: int = 0,
        limit: int = 1000,
        namespace: bytes | None = None,
    ) -> list[Entry]:
        self._check_open()
        self.check_read(partition, after, limit, namespace)
        found: list[Entry] = []
        while True:
            left = limit - len(found)
            entries, is_all = await self._ask(
                _ENTRIES, "read", partition, after, left, namespace
            )
            found += entries
            if is_all or not entries:
                return found
            after = found[-1].position

    async def follow(
        self, partition: int, after: int = 0
    ) -> AsyncGenerator[Entry, None]:
        self.check_read(partition, after)
        while not self._is_closed:
            try:
                entries = await self.read(partition, after)
                for entry in entries:
                    yield entry
                    after = entry.position
                if not entries:
                    await self._ask(_NOTHING, "wait", partition, after)
            except Closed:
                return

    async def bounds(self, partition: int) -> tuple[int, int]:
        self._check_open()
        self.check_partition(partition)
        return await self._ask(_BOUNDS, "bounds", partition)

    async def truncate(self, partition: int, before: int) -> None:
        self._check_open()
        self.check_partition(partition)
        await self._ask(_NOTHING, "truncate", partition, before)

    async def tell(self, partition: int, namespace: bytes, payload: bytes) -> None:
        self._check_open()
        self.check_told(partition, namespace, payload)
        await self._ask(_NOTHING, "tell", partition, namespace, payload)

    async def listen(self, partition: int) -> AsyncGenerator[tuple[bytes, bytes], None]:
        self.check_partition(partition)
        listener = next(self._numbers)
        while not self._is_closed:
            try:
                told = await self._ask(_TOLD, "hear", partition, listener)
            except Closed:
                return
            for namespace, payload in told:
                yield namespace, payload

    async def close(self) -> None:
        self._is_closed = True
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed("this pipeline was closed; open it again")

    # --- asking -----------------------------------------------------------------------

    async def _connected(self) -> Any:
        async with self._dialling:
            if self._socket is not None:
                return self._socket
            self._check_open()
            options = dict(_OPTIONS)
            if self._url.startswith("wss:"):
                options["ssl"] = self._tls or ssl.create_default_context()
            try:
                socket = await connect(
                    self._url, user_agent_header=None, proxy=None, **options,
                    additional_headers={"Authorization": f"Bearer {self._secret}"},
                )  # fmt: skip
            except (OSError, InvalidHandshake, InvalidURI) as error:
                raise PipelineError(f"the pipeline is not reached: {error}") from None
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    greeting = await socket.recv(decode=False)
                self.partitions, self.id = _GREETING(greeting)
                check_partitions(self.partitions)
            except (msgspec.MsgspecError, Invalid) as error:
                await socket.close(1003)
                raise PipelineError(f"what answers is no pipeline: {error}") from None
            except (ConnectionClosed, TimeoutError):
                await socket.close()
                raise PipelineError("the pipeline is not reached: no answer") from None
            self._socket = socket
            self._reader = asyncio.create_task(self._hear(socket))
            return socket

    async def _ask(
        self, read: Callable[[Any], _Answer], method: str, *arguments: Any
    ) -> _Answer:
        socket = await self._connected()
        number = next(self._numbers)
        raw = _encode([number, method, *arguments])
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            try:
                async with asyncio.timeout(WAIT_SECONDS + ANSWER_SECONDS):
                    await socket.send(raw)
                    said = await answer
            except ConnectionClosed:
                self._lost(socket)
                raise OutcomeUnknown(_LOST) from None
            except TimeoutError:
                await self._give_up(socket, "it did not answer in time")
                raise OutcomeUnknown("the pipeline did not answer in time") from None
        finally:
            self._waiting.pop(number, None)
        if len(said) > 2:
            raise _error(said[2], said[3:])
        try:
            return read(said[1])
        except (msgspec.ValidationError, IndexError) as error:
            await self._give_up(socket, "its answer is none")
            raise PipelineError(
                f"{method} was answered with nonsense: {error}"
            ) from None

    async def _give_up(self, socket: Any, why: str) -> None:
        """Whatever is at the other end, it is no pipeline that works."""
        self._lost(socket)
        await socket.close(1003, why)

    async def _hear(self, socket: Any) -> None:
        try:
            while True:
                answer = _ANSWER(await socket.recv(decode=False))
                waiting = self._waiting.get(answer[0])
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except ConnectionClosed:
            pass
        except msgspec.MsgspecError:
            await self._give_up(socket, "that is no answer")
        finally:
            self._lost(socket)

    def _lost(self, socket: Any) -> None:
        if self._socket is socket:
            self._socket = None
            if self._is_closed:
                self._fail(Closed("this pipeline was closed"))
            else:
                self._fail(OutcomeUnknown(_LOST))

    def _fail(self, error: Exception) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)


def _told(error: SyncError) -> list[Any]:
    """Return an error as an answer has it."""
    match error:
        case PositionConflict():
            return ["PositionConflict", error.expected, error.last]
        case Fenced():
            return ["Fenced", error.epoch, error.now]
        case Compacted():
            return ["Compacted", error.first]
        case _:
            return [type(error).__name__, str(error)]


def _error(kind: str, arguments: list[Any]) -> SyncError:
    """Return the error of an answer."""
    found: Any = getattr(errors, str(kind), PipelineError)
    try:
        error = found(*arguments)
    except TypeError:
        error = PipelineError(*arguments)
    return error if isinstance(error, SyncError) else PipelineError(str(error))


def serve_pipeline(
    pipeline: Pipeline,
    bind: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: ssl.SSLContext | None = None,
    secret: bytes | None = None,
) -> PipelineServer:
    """Return a server of a pipeline; use with `async with`. `secret` (16 bytes) keeps
    its address the same from one start to the next. Raises `Invalid` off loopback
    without TLS."""
    given = os.urandom(SECRET_BYTES) if secret is None else secret
    if len(given) != SECRET_BYTES:
        raise Invalid(f"a secret has {SECRET_BYTES} bytes, not {len(given)}")
    return PipelineServer(pipeline, bind, port, tls=tls, secret=given)
