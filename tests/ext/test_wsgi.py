"""Does a request's scope last as long as its response, and not longer? The middleware on SQLite, with servers that
behave and servers that do not."""

from __future__ import annotations

import gc
import io
import socket
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from tests.scene import SOON, background
from threadpool_db import Budget, PoolOverloaded, PoolTimeout, PoolUnavailable, TenantPools, create_pool
from threadpool_db.ext.wsgi import PoolMiddleware


@pytest.fixture(params=["operation", "thread"])
def pool(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Any]:
    with create_pool(f"sqlite:///{tmp_path}/wsgi.db", max_size=2, timeout=1.0, checkout=request.param) as pool:
        pool.execute("create table account (id integer primary key, balance integer)")
        pool.release()
        yield pool


class Response:
    """What a server makes of an application: headers, chunks as they come, and a close."""

    def __init__(self, app: Any, path: str = "/pay", method: str = "GET", **environ: Any) -> None:
        self.environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method, **environ}
        setup_testing_defaults(self.environ)
        self.status = ""
        self.headers: dict[str, str] = {}
        self.sent = False
        self.body = app(self.environ, self._start)

    def _start(self, status: str, headers: list[tuple[str, str]], error: Any = None) -> Callable[[bytes], None]:
        if error is not None and self.sent:
            raise error[1].with_traceback(error[2])
        self.status, self.headers = status, dict(headers)
        return lambda data: None

    def read(self) -> bytes:
        try:
            chunks = []
            for chunk in self.body:
                self.sent = self.sent or bool(chunk)
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            self.close()

    def close(self) -> None:
        if hasattr(self.body, "close"):
            self.body.close()


def ok(start_response: Any) -> None:
    start_response("200 OK", [("Content-Type", "text/plain")])


def pinning(pool: Any) -> Any:
    """Borrows what is then kept for its scope."""

    def app(environ: Any, start_response: Any) -> Any:
        ok(start_response)
        pool.execute("create temporary table if not exists scratch (x int)")
        assert pool.stats().in_use == 1
        return [b"done"]

    return app


def test_what_a_request_pins_is_let_go_of_when_it_has_its_answer(pool):
    app = PoolMiddleware(pinning(pool), pool)
    response = Response(app)
    assert pool.stats().in_use == 0  # a list: before the server reads it
    assert response.body == [b"done"]
    assert response.read() == b"done"


def test_a_streamed_body_keeps_its_scope_until_it_is_closed(pool):
    def app(environ, start_response):
        ok(start_response)

        def body():
            for n in range(3):
                pool.execute("create temporary table if not exists scratch (x int)")
                pool.execute("insert into scratch values (?)", (n,))
                yield str(pool.execute("select count(*) from scratch")[0][0]).encode()

        return body()

    response = Response(PoolMiddleware(app, pool))
    assert pool.stats().in_use == 0  # nothing was borrowed yet
    chunks = iter(response.body)
    assert next(chunks) == b"1" and pool.stats().in_use == 1
    assert next(chunks) == b"2" and pool.stats().in_use == 1
    response.close()  # the client has gone
    assert pool.stats().in_use == 0
    assert Response(PoolMiddleware(app, pool)).read() == b"123"
    assert pool.stats().in_use == 0


def test_the_apps_own_close_may_use_the_database_and_what_it_raises_costs_no_connection(pool):
    class Body:
        def __iter__(self):
            return iter([b"x"])

        def close(self):
            pool.execute("create temporary table if not exists scratch (x int)")
            assert pool.stats().in_use == 1
            raise OSError("in close")

    response = Response(PoolMiddleware(lambda environ, start: ok(start) or Body(), pool))
    with pytest.raises(OSError, match="in close"):
        response.read()
    assert pool.stats().in_use == 0


@pytest.mark.parametrize("where", ["view", "body"])
def test_an_error_passes_unchanged_and_leaves_nothing_behind(pool, where):
    error = ZeroDivisionError("mine")

    def fail():
        pool.execute("begin")
        pool.execute("insert into account values (1, 1)")
        raise error

    def app(environ, start_response):
        ok(start_response)
        if where == "view":
            fail()

        def body():
            yield b"first"
            fail()

        return body()

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of an error nobody needs to be told a second time
        with pytest.raises(ZeroDivisionError) as caught:
            Response(PoolMiddleware(app, pool)).read()
    assert caught.value is error
    assert pool.stats().in_use == 0 and pool.execute("select * from account") == []
    pool.release()


@pytest.mark.parametrize("streamed", [False, True])
def test_an_open_transaction_is_rolled_back_and_told_with_method_and_path_but_not_the_query(pool, streamed):
    def app(environ, start_response):
        ok(start_response)

        def body():
            pool.execute("begin")
            pool.execute("insert into account values (1, 1)")
            yield b"x"

        return body() if streamed else list(body())

    app = PoolMiddleware(app, pool)
    with pytest.warns(RuntimeWarning, match=r"GET '/shop/pay' ended inside an open transaction, which was rolled back"):
        Response(app, SCRIPT_NAME="/shop", QUERY_STRING="token=secret").read()
    assert pool.stats().in_use == 0 and pool.execute("select * from account") == []
    pool.release()


@pytest.mark.parametrize("refusal", [PoolTimeout("t"), PoolOverloaded("o"), PoolUnavailable("u")], ids=repr)
@pytest.mark.parametrize("where", ["view", "first chunk", "after nothing"])
def test_a_refusal_becomes_503_with_retry_after(pool, refusal, where, caplog):
    def app(environ, start_response):
        ok(start_response)
        if where == "view":
            raise refusal

        def body():
            if where == "after nothing":
                yield b""
            raise refusal

        return body()

    response = Response(PoolMiddleware(app, pool, retry_after=2.5))
    assert b"busy" in response.read()
    assert response.status.startswith("503 ") and response.headers["Retry-After"] == "3"
    [record] = caplog.records
    assert record.levelname == "WARNING" and "GET '/pay': 503, " in record.getMessage()


def test_a_refusal_in_the_middle_of_a_body_passes_for_it_is_too_late(pool):
    def app(environ, start_response):
        ok(start_response)

        def body():
            yield b"first"
            raise PoolTimeout("late")

        return body()

    with pytest.raises(PoolTimeout, match="late"):
        Response(PoolMiddleware(app, pool)).read()


def test_a_refusal_is_met_for_real_when_all_connections_are_held(pool):
    def app(environ, start_response):
        pool.execute("select 1", timeout=0)
        raise AssertionError("it was served")

    with pool.checkout(), pool.checkout():
        response = background(Response, PoolMiddleware(app, pool)).result(SOON)
        assert response.status == "503 Service Unavailable"
    assert background(Response, PoolMiddleware(app, pool), method="HEAD") is not None


def test_a_head_request_gets_no_body(pool):
    def app(environ, start_response):
        raise PoolTimeout("t")

    assert Response(PoolMiddleware(app, pool), method="HEAD").read() == b""


def test_several_pools_let_go_whatever_one_of_them_says(pool, tmp_path, monkeypatch):
    with create_pool(f"sqlite:///{tmp_path}/other.db", checkout=pool._config.checkout) as other:

        def app(environ, start_response):
            ok(start_response)
            for each in (pool, other):
                each.execute("create temporary table scratch (x int)")
            return [b"x"]

        let_go = other._let_go

        def broken(*args):
            let_go(*args)
            raise OSError("the last word")

        monkeypatch.setattr(other, "_let_go", broken)
        assert Response(PoolMiddleware(app, pool, other)).read() == b"x"
        assert (pool.stats().in_use, other.stats().in_use) == (0, 0)


@pytest.mark.parametrize("streamed", [False, True])
def test_of_many_tenants_those_let_go_whom_a_request_has_used(tmp_path, streamed):
    with TenantPools(lambda key: f"sqlite:///{tmp_path}/{key}.db", budget=Budget(4)) as tenants:

        def app(environ, start_response):
            ok(start_response)

            def body():
                for key in ("acme", "bolt"):
                    tenants.execute(key, "create temporary table scratch (x int)")
                    assert tenants[key].stats().in_use == 1
                    yield key.encode()

            tenants.execute("core", "begin")
            return body() if streamed else list(body())

        with pytest.warns(RuntimeWarning, match=r"pool 'tenants/core': GET '/pay' ended inside an open transaction"):
            assert Response(PoolMiddleware(app, tenants)).read() == b"acmebolt"
        assert tenants.stats().counts.in_use == 0


def test_a_body_that_is_dropped_without_close_gives_back_all_the_same(pool):
    def app(environ, start_response):
        ok(start_response)

        def body():
            pool.execute("create temporary table scratch (x int)")
            yield b"x"

        return body()

    def never_closed() -> None:
        gc.disable()  # the body is a circle, which is to be found in this thread
        try:
            response = Response(PoolMiddleware(app, pool))
            assert next(iter(response.body)) == b"x"
            assert pool.stats().in_use == 1
            del response
            gc.collect()
        finally:
            gc.enable()
        with pool.checkout(SOON), pool.checkout(SOON):  # the keeper may be wiping the session still
            pass

    background(never_closed).result(2 * SOON)
    assert pool.stats().in_use == 0


def test_a_request_within_another_scope_lets_go_of_what_it_began_and_of_nothing_else(pool):
    app = PoolMiddleware(pinning(pool), pool)
    with pool.scope():
        Response(app).read()
        assert pool.stats().in_use == 0
        pool.execute("create temporary table scratch (x int)")
        Response(app).read()
        assert pool.stats().in_use == 1
        pool.execute("select * from scratch")
    assert pool.stats().in_use == 0


def test_requests_of_one_thread_that_end_in_another_order_let_go_with_the_last(pool):
    def app(environ, start_response):
        ok(start_response)
        yield b"x"
        pool.execute("create temporary table if not exists scratch (x int)")
        yield b"y"

    first, second = (Response(PoolMiddleware(app, pool)) for _ in range(2))
    chunks = iter(second.body)
    assert [next(chunks), next(chunks)] == [b"x", b"y"]
    first.close()
    assert pool.stats().in_use == 1
    pool.execute("select * from scratch")
    second.close()
    assert pool.stats().in_use == 0


def test_a_body_that_another_thread_closes_costs_nobody_his_scope(pool, caplog):
    def app(environ, start_response):
        ok(start_response)
        yield b"x"

    with pool.scope():
        response = Response(PoolMiddleware(app, pool))
        pool.execute("create temporary table scratch (x int)")
        background(response.close).result(SOON)
        pool.execute("select * from scratch")
        assert pool.stats().in_use == 1
    assert pool.stats().in_use == 0
    assert "did not end well" in caplog.text and "GET '/pay' that was entered in another thread" in caplog.text


def test_a_file_goes_through_as_the_server_knows_it(pool):
    class Wrapper(FileWrapper):
        pass

    def app(environ, start_response):
        ok(start_response)
        pool.execute("create temporary table scratch (x int)")
        return environ["wsgi.file_wrapper"](io.BytesIO(b"a file"))

    response = Response(PoolMiddleware(app, pool), **{"wsgi.file_wrapper": Wrapper})
    assert type(response.body) is Wrapper and pool.stats().in_use == 0
    assert response.read() == b"a file"


def test_a_body_with_a_length_keeps_it(pool):
    class Sized:
        def __len__(self):
            return 1

        def __iter__(self):
            return iter([b"x"])

    assert len(Response(PoolMiddleware(lambda environ, start: ok(start) or Sized(), pool)).body) == 1
    with pytest.raises(TypeError):
        len(Response(PoolMiddleware(lambda environ, start: ok(start) or iter([b"x"]), pool)).body)


def test_a_request_that_never_touches_the_database_borrows_nothing(pool):
    before = pool.stats().checkouts
    assert Response(PoolMiddleware(lambda environ, start: ok(start) or [b"x"], pool)).read() == b"x"
    assert pool.stats().checkouts == before


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_it_is_wsgi_to_the_letter(pool, kind):
    app = validator(PoolMiddleware(validator(lambda environ, start: ok(start) or kind([b"a", b"b"])), pool))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environ: dict[str, Any] = {"QUERY_STRING": ""}
        setup_testing_defaults(environ)
        told: list[str] = []
        answer = app(environ, lambda status, headers, error=None: told.append(status) or (lambda data: None))
        assert b"".join(answer) == b"ab" and told == ["200 OK"]
        answer.close()


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def test_a_real_server_and_a_client_that_goes_away(pool):
    closed = threading.Event()

    def app(environ, start_response):
        ok(start_response)

        def body():
            try:
                pool.execute("create temporary table if not exists scratch (x int)")
                while environ["PATH_INFO"] == "/endless":
                    yield b"x" * 100_000
                yield b"whole"
            finally:
                closed.set()

        return body()

    server = make_server("127.0.0.1", 0, PoolMiddleware(app, pool), handler_class=Quiet)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{url}/whole", timeout=SOON) as answer:
            assert answer.read() == b"whole"
        with socket.create_connection(("127.0.0.1", server.server_port), SOON) as client:
            client.sendall(b"GET /endless HTTP/1.0\r\n\r\n")
            assert client.recv(100)
            closed.clear()
        assert closed.wait(SOON)
    finally:
        server.shutdown()
        serving.join(SOON)
        server.server_close()
    assert pool.stats().in_use == 0


def test_what_is_no_application_pool_or_number_is_refused(pool):
    with pytest.raises(TypeError, match="must be a WSGI application"):
        PoolMiddleware(None, pool)
    with pytest.raises(TypeError, match="at least one pool"):
        PoolMiddleware(lambda e, s: [])
    with pytest.raises(TypeError, match="is no pool of threadpool_db"):
        PoolMiddleware(lambda e, s: [], "sqlite://")
    for wrong in (-1, float("inf"), float("nan"), "1", True):
        with pytest.raises(ValueError, match="retry_after="):
            PoolMiddleware(lambda e, s: [], pool, retry_after=wrong)
