"""What a connection writes in one turn of the loop, in one piece: uvicorn writes head and body one after the other.

Each piece costs a system call, in which the kernel of a machine with both ends of a connection also wakes the other
end, and a reader that gets the head alone is woken twice (docs/measurements.md, "The server").
"""

import asyncio
from typing import Any, List

MOST_GATHERED_BYTES = 65_536  # asyncio's own high-water mark: above it a transport may say that it takes no more


class GatheredWrites:
    """A transport like the one given, whose small writes wait for the others of this turn of ``loop``."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop):
        self._transport = transport
        self._loop = loop
        self._parts: List[bytes] = []
        self._bytes = 0
        self.is_closing = transport.is_closing  # asked for each answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it, in this turn or at the end of it."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._bytes += len(data)
        if self._bytes > MOST_GATHERED_BYTES:
            self._flush()

    def _flush(self) -> None:
        parts, self._parts, self._bytes = self._parts, [], 0
        if len(parts) == 1:
            self._transport.write(parts[0])
        elif parts:
            self._transport.write(b"".join(parts))

    def forget(self) -> None:
        """Drop what is not sent yet: the connection is lost."""
        self._parts, self._bytes = [], 0

    def close(self) -> None:
        """Send what was written, and close."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.forget()
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent yet."""
        return self._bytes + int(self._transport.get_write_buffer_size())
