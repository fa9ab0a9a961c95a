"""A real S3-speaking server on loopback: moto's, one request after another.

S3 decides of two writers of one object as if they had come one after the other. moto looks and then writes, in
threads of its own, so that both could win: without threads it keeps the promise.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

BUCKET = "lab"


@contextmanager
def serving() -> Iterator[str]:
    """The server's address; it has one empty bucket."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class Silent(MotoRequestHandler):
        def log(self, *arguments: Any) -> None:
            pass

    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=False, request_handler=Silent)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    urlopen(Request(f"{address}/{BUCKET}", method="PUT")).close()
    try:
        yield address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
