"""A port between a node and its SuperLink: counts what passes, and can keep what is inside TLS."""

import asyncio
import ssl
import threading
from contextlib import suppress
from pathlib import Path


class Forwarder:
    """Passes connections to a port of its own on to another port of this machine.

    Args:
        target: the other port.
        server: the server's directory of a deployment. With its key, TLS ends here and begins
            anew, and `streams` keeps what was said, one for each connection and direction.
    """

    def __init__(self, target: int, server: Path | None = None) -> None:
        self.bytes = 0
        self.streams: list[bytearray] = []
        self.port: int
        self._target = target
        self._theirs: ssl.SSLContext | None = None
        self._ours: ssl.SSLContext | None = None
        if server:
            self._theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._theirs.load_cert_chain(server / "server.crt", server / "server.key")
            self._ours = ssl.create_default_context(cafile=str(server / "ca.crt"))
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._run(ready)), daemon=True).start()
        ready.wait()

    async def _run(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", ssl=self._theirs)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await server.serve_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = await asyncio.open_connection("127.0.0.1", self._target, ssl=self._ours)
        except OSError:  # nothing listens there
            writer.close()
            return
        await asyncio.gather(self._forward(reader, far[1]), self._forward(far[0], writer))

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        kept = bytearray()
        self.streams.append(kept)
        with suppress(OSError):  # either end was closed
            while content := await source.read(2**16):
                self.bytes += len(content)
                if self._theirs:
                    kept += content
                sink.write(content)
                await sink.drain()
        sink.close()
