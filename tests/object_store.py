"""An S3 speaker on this machine that fails now and then: moto's, behind a door that is sometimes shut."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BUCKET = "pairs"
FAILING = 0.05  # share of requests that are refused for the moment


class Faulty:
    """A WSGI application of whose answers some are 503, drawn by a seed; the first is not."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app, self._chance = app, random.Random(0)
        self.asked = self.failed = 0
        self._lock = threading.Lock()

    def __call__(self, environ: Any, start_response: Callable[..., Any]) -> Any:
        with self._lock:
            self.asked += 1
            fails = self.asked > 1 and self._chance.random() < FAILING
            self.failed += fails
        if fails:
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        return self._app(environ, start_response)


@contextmanager
def object_store(cache: Path) -> Iterator[Faulty]:
    """A bucket named BUCKET, for this process and those that it starts, while the block lasts.

    Args:
        cache: folder of the copies that they keep.
    """
    import s3fs
    from moto.s3.models import s3_backends
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    faulty = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faulty, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell of each request
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROCLIP_CACHE", str(cache))
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # the client would wait for seconds, and hide what we do
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(BUCKET)
        yield faulty
        s3fs.S3FileSystem.clear_instance_cache()
    server.shutdown()
    s3_backends.reset()  # of the whole process: another store begins empty
