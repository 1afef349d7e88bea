"""An S3 on this machine, for tests."""

from __future__ import annotations

import logging
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest
from moto.server import ThreadedMotoServer


class Store:
    """A store that can go away and come back as it was."""

    url = "s3://studies"

    def __init__(self) -> None:
        self._port = 0

    def start(self) -> None:
        """Makes it answer."""
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        host, self._port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{self._port}"

    def stop(self) -> None:
        """Makes it refuse connections; what it holds is kept in this process."""
        self._server.stop()


@contextmanager
def _running() -> Iterator[Store]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = Store()
    store.start()
    urllib.request.urlopen(f"{store.endpoint}/moto-api/reset", data=b"").close()  # what other tests left
    settings = {
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setitem(os.environ, name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # they know another store's endpoint
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("studies")
        yield store
    store.stop()


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """A store with an empty bucket."""
    with _running() as made:
        yield made


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket."""
    with _running() as made:
        yield made.url
