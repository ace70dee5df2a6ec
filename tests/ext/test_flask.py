"""Does a Flask app get its pool by one line, and do its connections come back when its responses are over?"""

from __future__ import annotations

import contextvars
import copy
import gc
import json
import logging
import re
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flask
import flask_sqlalchemy
import pytest
import sqlalchemy
from flask import Flask, Response, stream_with_context
from flask.cli import FlaskGroup
from flask.sessions import SecureCookieSessionInterface
from werkzeug.exceptions import HTTPException

from tests.ext import test_wsgi
from tests.ext.test_sqlalchemy_plugin import with_plugin
from tests.scene import SOON, background, join
from threadpool_db import (
    Pool,
    PoolError,
    PoolMisuse,
    PoolOverloaded,
    PoolTimeout,
    PoolUnavailable,
    create_pool,
)
from threadpool_db.ext.flask import FlaskPool
from threadpool_db.ext.wsgi import PoolMiddleware

#: Leaves something in the session, so that its connection is kept for the rest of the scope.
PIN = "create temporary table if not exists scratch (x int)"
REFUSALS = [PoolTimeout("t"), PoolOverloaded("o"), PoolUnavailable("u")]

Make = Callable[..., Flask]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """An app with this config, and these pools; what it opened is closed in the end."""
    apps: list[Flask] = []

    def create_app(*pools: FlaskPool, name: str = "shop", **config: Any) -> Flask:
        app = Flask(name)
        app.config.update({"THREADPOOL_DB_URL": url, **config})
        for one in pools:
            one.init_app(app)
        apps.append(app)
        return app

    yield create_app
    for app in apps:
        for one in app.extensions.get("threadpool_db", {}).values():
            one.pool.close()


@pytest.fixture(params=["operation", "thread"])
def checkout(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def pool(checkout: str) -> FlaskPool:
    return FlaskPool(max_size=2, timeout=1.0, checkout=checkout)


@pytest.fixture
def app(make: Make, pool: FlaskPool) -> Flask:
    app = make(pool)
    with app.app_context():
        pool.execute("create table account (id integer primary key, balance integer)")
    return app


def real(app: Flask, prefix: str = "THREADPOOL_DB") -> Any:
    """The app's pool, without an app context."""
    return app.extensions["threadpool_db"][prefix].pool


def in_use(app: Flask) -> int:
    used: int = real(app).stats().in_use
    return used


def serve(app: Flask, path: str = "/", **environ: Any) -> test_wsgi.Response:
    """As a server would: the body is made when it is read, and closed."""
    return test_wsgi.Response(app, path, **environ)


class TestFlaskPool:
    def test_it_has_the_whole_face_of_the_current_apps_pool(self, app: Flask, pool: FlaskPool) -> None:
        @app.post("/pay")
        def pay() -> str:
            with pool.transaction() as connection:
                connection.execute("insert into account values (1, 5)")
                assert pool.in_transaction
            with pool.connection() as connection:
                assert connection.execute("select balance from account").fetchall() == [(5,)]
            with pool.checkout() as connection:
                assert connection.execute("select 1").fetchone() == (1,)
            lease = pool.lease()
            pool.release()
            assert not lease.active
            assert pool.proxy().execute("select 3").fetchone() == (3,)
            return str(pool.execute("select balance from account", ())[0][0])

        assert app.test_client().post("/pay").text == "5"

    def test_it_is_the_users_line_that_is_remembered(self, app: Flask, pool: FlaskPool) -> None:
        with app.app_context(), pool.connection():
            (hold,) = pool.stats().holders
        assert "test_flask.py" in str(hold) and "extension.py" not in str(hold)

    def test_outside_of_an_app_context_the_error_says_what_to_do(self, app: Flask, pool: FlaskPool) -> None:
        with pytest.raises(PoolMisuse, match=r"write 'with app.app_context\(\):'.*stream_with_context\(\)"):
            pool.execute("select 1")

    def test_an_app_that_it_does_not_know_is_an_error(self, pool: FlaskPool, make: Make) -> None:
        for app in (make(), make(FlaskPool())):
            with app.app_context(), pytest.raises(PoolMisuse, match=r"'shop' is not known .*call its init_app\(app\)"):
                pool.execute("select 1")

    def test_the_pool_itself_is_for_those_that_have_no_context(self, app: Flask, pool: FlaskPool) -> None:
        with app.app_context():
            current = pool.current
            assert type(current) is Pool and current is real(app)
            assert join(background(current.execute, "select 7")) == [[(7,)]]
            join(background(current.release))

    def test_debuggers_and_copies_may_look_at_it_anywhere(self, pool: FlaskPool) -> None:
        assert repr(pool) == "<FlaskPool 'THREADPOOL_DB'>"
        assert {"execute", "transaction", "init_app", "current"} <= set(dir(pool))
        assert "_hold" not in dir(pool)
        assert copy.copy(pool)._prefix == "THREADPOOL_DB"
        with pytest.raises(AttributeError, match="'_nothing'"):
            pool._nothing  # type: ignore[attr-defined]  # noqa: B018

    def test_what_a_pool_does_not_have_it_does_not_have_either(self, app: Flask, pool: FlaskPool) -> None:
        with app.app_context(), pytest.raises(AttributeError, match="exeucte"):
            pool.exeucte("select 1")  # type: ignore[attr-defined]


class TestApps:
    def test_each_app_has_a_pool_of_its_own(self, make: Make, tmp_path: Path) -> None:
        pool = FlaskPool()
        apps = [make(pool, name=name, THREADPOOL_DB_URL=f"sqlite:///{tmp_path}/{name}") for name in ("one", "two")]
        for app in apps:
            with app.app_context():
                pool.execute("create table t (app text)")
                pool.execute("insert into t values (?)", (app.name,))
        for app in apps:
            with app.app_context():
                assert pool.execute("select * from t") == [(app.name,)]
        assert real(apps[0]) is not real(apps[1])

    def test_one_app_may_have_several_with_keys_of_their_own(self, make: Make, tmp_path: Path) -> None:
        main, archive = FlaskPool(), FlaskPool(prefix="ARCHIVE_DB", max_size=3)
        app = make(main, archive, ARCHIVE_DB_URL=f"sqlite:///{tmp_path}/archive", ARCHIVE_DB_TIMEOUT=3)

        @app.get("/")
        def both() -> str:
            for one in (main, archive):
                one.execute(PIN)
            return f"{main.stats().max_size} {archive.stats().max_size}"

        assert app.test_client().get("/").text == "10 3"
        assert in_use(app) == real(app, "ARCHIVE_DB").stats().in_use == 0
        assert real(app, "ARCHIVE_DB")._config.timeout == 3

    def test_init_app_twice_is_an_error(self, make: Make) -> None:
        pool = FlaskPool()
        app = make(pool)
        with pytest.raises(PoolMisuse, match=r"'shop': init_app\(\) was called with it already"):
            pool.init_app(app)
        with pytest.raises(PoolMisuse, match=r"another FlaskPool whose keys begin with THREADPOOL_DB_; give .*prefix="):
            FlaskPool(app)

    def test_what_is_no_app_is_an_error(self) -> None:
        with pytest.raises(TypeError, match="must be a Flask app"):
            FlaskPool().init_app("shop")  # type: ignore[arg-type]

    def test_an_app_that_serves_already_is_left_as_it_was(self, make: Make) -> None:
        app, pool = make(), FlaskPool()
        app.test_client().get("/")
        before = app.wsgi_app
        for _ in range(2):
            with pytest.raises(AssertionError, match="can no longer be called"):
                pool.init_app(app)
        assert app.wsgi_app == before and "threadpool_db" not in app.extensions

    def test_nothing_is_made_before_it_is_used(self, make: Make) -> None:
        app = make(FlaskPool(min_size=2))
        group: Any = FlaskGroup(create_app=lambda: app)
        assert "static" in app.test_cli_runner().invoke(group, ["routes"]).output
        assert app.extensions["threadpool_db"]["THREADPOOL_DB"]._made is None

    def test_requests_that_come_together_make_one_pool(self, make: Make, url: str) -> None:
        made: list[Pool] = []
        begin = threading.Barrier(8)

        def factory(app: Flask) -> Pool:
            made.append(create_pool(url, name=f"pool of {app.name}"))
            return made[-1]

        pool = FlaskPool(pool=factory)
        app = make(pool, THREADPOOL_DB_URL=url)

        def use() -> str:
            with app.app_context():
                begin.wait(SOON)
                return str(pool.name)

        assert join(*(background(use) for _ in range(8))) == ["pool of shop"] * 8
        assert len(made) == 1

    def test_a_ready_pool_may_serve_several_apps(self, url: str) -> None:
        with create_pool(url) as ready:
            pool = FlaskPool(pool=ready)
            for name in ("one", "two"):
                app = Flask(name)
                app.config["THREADPOOL_DB_RETRY_AFTER"] = 5
                pool.init_app(app)

                @app.get("/")
                def view() -> str:
                    ready.execute(PIN)  # by its own name: the request lets go all the same
                    assert ready.stats().in_use == 1
                    return str(pool.current is ready)

                assert app.test_client().get("/").text == "True"
                assert ready.stats().in_use == 0

    def test_a_pool_made_in_code_has_its_options_there(self, url: str) -> None:
        with create_pool(url) as ready:
            with pytest.raises(
                TypeError, match=r"FlaskPool\(pool=...\) has its options already; leave out url, max_size"
            ):
                FlaskPool(pool=ready, url=url, max_size=3)
            app = Flask("shop")
            app.config["THREADPOOL_DB_URL"] = url
            with pytest.raises(TypeError, match=r"app.config has THREADPOOL_DB_URL, but .* a ready pool"):
                FlaskPool(app, pool=ready)
        with pytest.raises(TypeError, match="must be a pool, made with create_pool"):
            FlaskPool(pool=url)  # type: ignore[arg-type]
        app = Flask("shop")
        pool = FlaskPool(app, pool=lambda app: "nothing")  # type: ignore[arg-type, return-value]
        with app.app_context(), pytest.raises(TypeError, match="its function made 'nothing', which is no pool"):
            pool.execute("select 1")


class TestSettings:
    def configured(self, make: Make, defaults: dict[str, Any], **config: Any) -> Any:
        app = make(FlaskPool(**defaults), **{f"THREADPOOL_DB_{name}": value for name, value in config.items()})
        return real(app)._config

    def test_the_config_wins_over_the_code(self, make: Make) -> None:
        config = self.configured(make, {"max_size": 3, "timeout": 2.0}, MAX_SIZE=4)
        assert (config.max_size, config.timeout, config.max_waiting) == (4, 2.0, None)

    def test_the_url_may_have_a_default_in_code(self, tmp_path: Path) -> None:
        app = Flask("shop")
        with pytest.raises(ValueError, match=r"'shop': app.config\['THREADPOOL_DB_URL'\] is missing; .*postgresql://"):
            FlaskPool(app)
        pool = FlaskPool(app, url=f"sqlite:///{tmp_path}/development.db")
        with app.app_context():
            assert pool.execute("select 1") == [(1,)]
            pool.close()

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("MAX_SIZE", "20", 20),
            ("MAX_SIZE", "inf", float("inf")),
            ("TIMEOUT", "2.5", 2.5),
            ("MAX_IDLE", "none", None),
            ("MAX_WAITING", "", None),
            ("BACKGROUND", " off\n", False),
            ("BACKGROUND", 0, False),
            ("READ_ONLY", "True", True),
            ("READ_ONLY", "none", None),
            ("AUTOCOMMIT", 1, True),
            ("CHECKOUT", "thread", "thread"),
            ("ISOLATION", "None", None),
            ("NAME", "orders", "orders"),
            ("INIT_SQL", "pragma foreign_keys = 1", ("pragma foreign_keys = 1",)),
            ("DISCONNECT_ON", "1290, 8", (1290, 8)),
            ("DISCONNECT_ON", "none", None),
        ],
    )
    def test_a_text_becomes_what_the_option_wants(self, make: Make, name: str, text: Any, value: Any) -> None:
        found = getattr(self.configured(make, {}, **{name: text}), name.lower())
        assert (found, type(found)) == (value, type(value))

    def test_codes_of_errors_are_told_from_each_other_by_their_length(self, make: Make) -> None:
        config = self.configured(make, {}, URL="postgresql://h/d", DISCONNECT_ON="25006 57P01")
        assert config.disconnect_on == ("25006", "57P01")

    def test_they_come_from_the_environment(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, text in {"URL": url, "MAX_SIZE": "3", "SERVER_POOLER": "false", "CHECKOUT": "thread"}.items():
            monkeypatch.setenv(f"FLASK_THREADPOOL_DB_{name}", text)
        app = Flask("shop")
        app.config.from_prefixed_env()
        pool = FlaskPool(app)
        with app.app_context():
            assert (pool.stats().max_size, pool.current._config.checkout) == (3, "thread")
            pool.close()

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("MAXSIZE", "did you mean THREADPOOL_DB_MAX_SIZE?"),
            ("POOL_SIZE", "did you mean THREADPOOL_DB_MAX_SIZE?"),
            ("ULR", "did you mean THREADPOOL_DB_URL?"),
            ("RETRYAFTER", "did you mean THREADPOOL_DB_RETRY_AFTER?"),
            ("XYZZY", "there are THREADPOOL_DB_ALARMS, "),
        ],
    )
    def test_a_name_that_is_no_options_is_an_error_that_knows_what_was_meant(
        self, make: Make, name: str, meant: str
    ) -> None:
        with pytest.raises(TypeError, match=rf"app.config has 'THREADPOOL_DB_{name}', .*{re.escape(meant)}"):
            make(FlaskPool(), **{f"THREADPOOL_DB_{name}": 1})

    def test_the_time_to_come_again_is_the_apps_and_not_a_pools(self, make: Make, url: str) -> None:
        with pytest.raises(TypeError, match="'ARCHIVE_DB_RETRY_AFTER', which is no option"):
            make(FlaskPool(prefix="ARCHIVE_DB"), ARCHIVE_DB_URL=url, ARCHIVE_DB_RETRY_AFTER=1)
        for wrong in ("soon", -1, True):
            with pytest.raises(ValueError, match=r"THREADPOOL_DB_RETRY_AFTER=.*: must be a number of seconds"):
                make(FlaskPool(), THREADPOOL_DB_RETRY_AFTER=wrong)

    @pytest.mark.parametrize(
        ("name", "value", "complaint"),
        [
            ("MAX_SIZE", "many", "max_size='many': must be a whole number from 1 on"),
            ("TIMEOUT", "-1", r"timeout=-1.0: must be a number from 0 on"),
            ("BACKGROUND", "perhaps", "background='perhaps': must be one of True, False"),
            ("CHECKOUT", "request", "checkout='request': must be one of"),
            ("ISOLATION", "read committed", "isolation='read committed'"),
            ("URL", "oracle://bob:secret@h/d", "url has the unknown scheme 'oracle'"),
            ("URL", 5, r"app.config\['THREADPOOL_DB_URL'\] must be text, it is of type int"),
        ],
    )
    def test_an_impossible_one_is_named_at_start(self, make: Make, name: str, value: Any, complaint: str) -> None:
        with pytest.raises(ValueError, match=rf"^Flask app 'shop'.*{complaint}") as caught:
            make(FlaskPool(), **{f"THREADPOOL_DB_{name}": value})
        assert caught.value.__context__ is None and "secret" not in str(caught.value)

    def test_one_that_this_version_does_not_have_is_named(self, make: Make) -> None:
        with pytest.raises(TypeError, match="option 'stats_dir' is not available"):
            make(FlaskPool(), THREADPOOL_DB_STATS_DIR="/tmp")

    def test_an_unknown_option_in_code_is_an_error_at_once(self) -> None:
        with pytest.raises(TypeError, match="unknown option 'maxsize'; did you mean 'max_size'"):
            FlaskPool(maxsize=3)

    @pytest.mark.parametrize("prefix", ["archive", "ARCHIVE_", "", "_DB", 5])
    def test_a_prefix_must_be_one_of_app_configs(self, prefix: Any) -> None:
        with pytest.raises(ValueError, match="must be in capitals"):
            FlaskPool(prefix=prefix)

    def test_a_prefix_may_not_begin_as_the_main_ones_options_do(self) -> None:
        with pytest.raises(ValueError, match="'ARCHIVE_DB' for instance"):
            FlaskPool(prefix="THREADPOOL_DB_ARCHIVE")


class TestRequests:
    def test_what_a_request_pins_is_let_go_of_when_its_response_is_there(self, app: Flask, pool: FlaskPool) -> None:
        @app.get("/")
        def view() -> str:
            pool.execute(PIN)
            assert pool.stats().in_use == 1
            return "done"

        response = serve(app)
        assert in_use(app) == 0  # Flask's body is an iterator, though nothing is streamed: before the server reads it
        assert response.read() == b"done"

    @pytest.mark.parametrize("with_context", [True, False])
    def test_a_streamed_body_keeps_its_scope_until_it_is_closed(
        self, app: Flask, pool: FlaskPool, with_context: bool
    ) -> None:
        @app.get("/")
        def view() -> Response:
            pool.execute(PIN)
            source: Any = pool if with_context else pool.current

            def rows() -> Iterator[str]:
                for n in range(3):
                    source.execute("insert into scratch values (?)", (n,))
                    yield str(source.execute("select count(*) from scratch")[0][0])

            return Response(stream_with_context(rows()) if with_context else rows())

        response = serve(app)
        assert in_use(app) == 1  # Flask's first teardown is over
        chunks = iter(response.body)
        assert next(chunks) == b"1" and in_use(app) == 1
        response.close()  # the client has gone
        assert in_use(app) == 0
        assert serve(app).read() == b"123" and in_use(app) == 0

    @pytest.mark.parametrize("streamed", [False, True])
    def test_an_open_transaction_is_rolled_back_and_told_with_method_and_path(
        self, app: Flask, pool: FlaskPool, streamed: bool
    ) -> None:
        @app.post("/pay")
        def pay() -> Any:
            def body() -> Iterator[str]:
                pool.execute("begin")
                pool.execute("insert into account values (1, 5)")
                yield "x"

            return Response(stream_with_context(body())) if streamed else list(body())

        with pytest.warns(RuntimeWarning, match=r"POST '/pay' ended inside an open transaction, which was rolled back"):
            serve(app, "/pay", method="POST", QUERY_STRING="token=secret").read()
        with app.app_context():
            assert in_use(app) == 0 and pool.execute("select * from account") == []

    @pytest.mark.parametrize("propagate", [False, True])
    def test_after_an_error_nobody_is_told_a_second_time(
        self, app: Flask, pool: FlaskPool, propagate: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = propagate

        @app.get("/")
        def view() -> str:
            pool.execute("begin")
            raise ZeroDivisionError("mine")

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if propagate:
                with pytest.raises(ZeroDivisionError):
                    serve(app)
            else:
                response = serve(app)
                assert response.read() and response.status.startswith("500 ")
        assert in_use(app) == 0
        assert [record.name for record in caplog.records] == ([] if propagate else ["shop"])

    def test_teardown_functions_that_raise_cost_no_connection(self, app: Flask, pool: FlaskPool) -> None:
        @app.teardown_appcontext
        @app.teardown_request
        def broken(error: BaseException | None) -> None:
            raise OSError("in teardown")

        @app.get("/")
        def view() -> str:
            pool.execute(PIN)
            return "done"

        with pytest.raises(OSError, match="in teardown"):
            serve(app)
        assert in_use(app) == 0

        def command() -> None:
            with app.app_context():
                pool.execute("create temporary table scratch (x int)")

        def broken_command() -> None:
            with pytest.raises(OSError, match="in teardown"):
                command()
            gc.collect()
            with real(app).checkout(SOON), real(app).checkout(SOON):  # both are there again
                pass

        join(background(broken_command))

    def test_teardown_functions_may_use_the_database(self, app: Flask, pool: FlaskPool) -> None:
        @app.teardown_appcontext
        @app.teardown_request
        def use(error: BaseException | None) -> None:
            pool.execute(PIN)

        app.add_url_rule("/", view_func=lambda: "done")
        assert serve(app).read() == b"done" and in_use(app) == 0

    def test_a_request_that_never_touches_the_database_borrows_nothing(self, app: Flask) -> None:
        app.add_url_rule("/", view_func=lambda: "done")
        before = real(app).stats().checkouts
        assert serve(app).read() == b"done" and real(app).stats().checkouts == before

    def test_an_error_page_is_all_there_too(self, app: Flask, pool: FlaskPool) -> None:
        @app.get("/<int:code>")
        def view(code: int) -> str:
            pool.execute(PIN)
            flask.abort(code)

        for path in ("/404", "/500"):
            answer = app.test_client().get(path)  # unread, and unclosed
            assert f"/{answer.status_code}" == path and in_use(app) == 0

    def test_a_stream_that_a_client_drops_unread_lets_go_at_once(self, app: Flask, pool: FlaskPool) -> None:
        @app.get("/")
        def view() -> Any:
            pool.execute("create temporary table scratch (x int)")
            return iter(["a", "b"])

        def visit() -> None:
            gc.disable()
            try:
                assert app.test_client().get("/").status_code == 200
                with real(app).checkout(SOON), real(app).checkout(SOON):  # both are there again
                    pass
            finally:
                gc.enable()

        background(visit).result(2 * SOON)

    def test_a_view_may_answer_with_another_application_that_streams(self, app: Flask, pool: FlaskPool) -> None:
        @app.get("/")
        def view() -> Any:
            source = pool.current
            source.execute(PIN)

            def other(environ: Any, start_response: Any) -> Iterator[bytes]:
                start_response("200 OK", [("Content-Type", "text/plain")])
                yield b"first "
                source.execute("select * from scratch")
                yield b"second"

            return other

        response = serve(app)
        assert in_use(app) == 1
        assert response.read() == b"first second" and in_use(app) == 0

    def test_one_that_is_dispatched_by_hand_is_its_contexts(self, app: Flask, pool: FlaskPool) -> None:
        @app.get("/<int:number>")
        def view(number: int) -> str:
            pool.execute(PIN)
            return str(1 // number)

        for path, code in (("/1", 200), ("/0", 500)):
            with app.test_request_context(path):
                try:
                    response = app.full_dispatch_request()
                except ZeroDivisionError as error:
                    response = app.handle_exception(error)
                assert response.status_code == code and in_use(app) == 1
            assert in_use(app) == 0

    def test_a_file_is_left_to_the_server(self, app: Flask, pool: FlaskPool, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"a file")

        @app.get("/")
        def view() -> Response:
            pool.execute(PIN)
            return flask.send_file(tmp_path / "file", mimetype="text/plain")

        response = serve(app, **{"wsgi.file_wrapper": test_wsgi.FileWrapper})
        assert in_use(app) == 0 and type(response.body) is test_wsgi.FileWrapper
        assert response.read() == b"a file"

    def test_callbacks_on_close_are_still_called_after_the_response(self, app: Flask, pool: FlaskPool) -> None:
        closed: list[int] = []

        @app.get("/")
        def view() -> Response:
            return flask.after_this_request(lambda r: r) and Response("done")  # type: ignore[return-value]

        @app.after_request
        def late(response: Response) -> Response:
            response.call_on_close(lambda: closed.append(in_use(app)))
            return response

        response = serve(app)
        assert closed == []
        response.read()
        assert closed == [0]


class TestContexts:
    """Those that are no request's."""

    @pytest.mark.parametrize("context", ["app_context", "test_request_context"])
    def test_its_teardown_lets_go(self, app: Flask, pool: FlaskPool, context: str) -> None:
        with getattr(app, context)():
            pool.execute(PIN)
            pool.execute("insert into scratch values (1)")  # the same session
            assert in_use(app) == 1
        assert in_use(app) == 0

    @pytest.mark.parametrize(
        ("context", "name"), [("app_context", "an app context of 'shop'"), ("test_request_context", "GET '/cart'")]
    )
    def test_what_it_leaves_open_is_rolled_back_and_told(
        self, app: Flask, pool: FlaskPool, context: str, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        arguments = ("/cart",) if context == "test_request_context" else ()
        with pytest.warns(RuntimeWarning, match=rf"{name} ended inside an open transaction"):
            with getattr(app, context)(*arguments):
                pool.execute("begin")
        assert in_use(app) == 0
        with warnings.catch_warnings(), pytest.raises(ZeroDivisionError):
            warnings.simplefilter("error")
            with app.app_context():
                pool.execute("begin")
                raise ZeroDivisionError
        assert in_use(app) == 0 and "did not end well" not in caplog.text

    def test_a_command_lets_go(self, app: Flask, pool: FlaskPool) -> None:
        @app.cli.command("count")
        def count() -> None:
            pool.execute(PIN)
            print(pool.execute("select count(*) from account")[0][0], in_use(app))

        assert app.test_cli_runner().invoke(args=["count"]).output == "0 1\n"
        assert in_use(app) == 0

    def test_an_inner_one_lets_go_of_what_began_in_it(self, app: Flask, pool: FlaskPool) -> None:
        with app.app_context():
            pool.execute("select 1")
            pool.release()
            with app.app_context():
                pool.execute(PIN)
                assert in_use(app) == 1
            assert in_use(app) == 0
            with pytest.warns(RuntimeWarning, match="ended inside an open transaction"), app.app_context():
                pool.execute("begin")
            assert in_use(app) == 0

    def test_an_inner_one_leaves_what_was_there(self, app: Flask, pool: FlaskPool) -> None:
        with app.app_context():
            pool.execute(PIN)
            pool.execute("begin")
            pool.execute("insert into account values (1, 5)")
            with app.app_context():
                assert pool.in_transaction
                pool.execute("insert into account values (2, 5)")
            assert in_use(app) == 1 and pool.in_transaction
            pool.execute("commit")
            pool.execute("select * from scratch")
            assert pool.execute("select count(*) from account") == [(2,)]
        assert in_use(app) == 0

    def test_a_client_in_a_tests_own_context_sees_what_a_real_one_would(self, app: Flask, pool: FlaskPool) -> None:
        @app.post("/pay")
        def pay() -> str:
            pool.execute("begin")
            pool.execute("insert into account values (2, 5)")
            return "forgot to commit"

        with app.app_context():
            pool.execute("insert into account values (1, 5)")
            pool.release()
            with pytest.warns(RuntimeWarning, match="POST '/pay' ended inside an open transaction"):
                app.test_client().post("/pay")
            assert pool.execute("select id from account") == [(1,)]

    def test_a_test_may_roll_back_what_its_client_did(self, app: Flask, pool: FlaskPool) -> None:
        @app.post("/pay")
        def pay() -> str:
            with pool.transaction():
                pool.execute("insert into account values (1, 5)")
            return "paid"

        class Undo(Exception):
            pass

        with app.app_context():
            with pytest.raises(Undo), pool.transaction():
                assert app.test_client().post("/pay").text == "paid"
                assert pool.execute("select count(*) from account") == [(1,)]
                raise Undo
            assert pool.execute("select count(*) from account") == [(0,)]

    def test_a_client_that_keeps_its_context_may_go_on_in_it(self, app: Flask, pool: FlaskPool) -> None:
        @app.get("/")
        def view() -> str:
            pool.execute(PIN)
            return "done"

        with app.test_client() as client:
            client.get("/")
            assert in_use(app) == 0
            pool.execute(PIN)
            assert in_use(app) == 1
        assert in_use(app) == 0

    def test_a_thread_with_a_copy_of_the_requests_context_lets_go_by_itself(self, app: Flask, pool: FlaskPool) -> None:
        @app.get("/")
        def view() -> str:
            pool.execute(PIN)

            @flask.copy_current_request_context
            def elsewhere() -> int:
                pool.execute("create temporary table scratch (x int)")  # in another session
                return in_use(app)

            assert join(background(elsewhere)) == [2]
            # the thread may wipe the session still
            with pool.checkout(SOON):
                assert pool.execute("select * from scratch") == []
            return "done"

        assert serve(app).read() == b"done" and in_use(app) == 0

    def test_each_context_has_one_scope(self, app: Flask, pool: FlaskPool) -> None:
        with app.app_context():
            for _ in range(3):
                pool.execute("select 1")
            assert len(flask.g._threadpool_db) == real(app)._hold().scopes == 1

    @pytest.mark.parametrize("in_request", [True, False])
    def test_a_thread_that_shares_a_context_has_a_scope_of_its_own(
        self, app: Flask, pool: FlaskPool, in_request: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Async views run so: in a thread that ends with them."""

        @app.get("/")
        def view() -> str:
            pool.execute("select 1")
            pool.release()
            context = contextvars.copy_context()

            def elsewhere() -> int:
                pool.execute("create temporary table scratch (x int)")
                pool.execute("insert into scratch values (1)")
                return in_use(app)

            assert join(background(context.run, elsewhere)) == [1]
            return "done"

        if in_request:
            assert serve(app).read() == b"done"
        else:
            with app.app_context():
                view()
        with real(app).checkout(SOON), real(app).checkout(SOON):  # both are there again
            pass
        assert "did not end well" not in caplog.text and real(app)._hold().scopes == 0


class TestRefusals:
    def app(self, make: Make, error: Exception, **config: Any) -> Flask:
        app = make(FlaskPool(), THREADPOOL_DB_RETRY_AFTER="2.5", **config)

        @app.get("/")
        def view() -> str:
            raise error

        return app

    @pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
    @pytest.mark.parametrize(
        "config", [{}, {"TESTING": True}, {"DEBUG": True}, {"PROPAGATE_EXCEPTIONS": True}], ids=str
    )
    def test_one_in_a_view_becomes_503(
        self, make: Make, refusal: Any, config: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        app = self.app(make, refusal, **config)
        answer = app.test_client().get("/")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
        assert "The service is busy, please try again." in answer.text
        [record] = caplog.records
        assert (record.name, record.levelno) == ("threadpool_db.flask", logging.WARNING)
        assert record.getMessage() == f"GET '/': 503, {refusal}"

    def test_it_is_met_for_real(self, app: Flask, pool: FlaskPool) -> None:
        app.add_url_rule("/", view_func=lambda: str(pool.execute("select 1", timeout=0)))
        with real(app).checkout(), real(app).checkout():
            assert background(app.test_client().get, "/").result(SOON).status_code == 503
        assert background(app.test_client().get, "/").result(SOON).status_code == 200

    def test_without_a_setting_it_is_a_second(self, make: Make) -> None:
        app = make(FlaskPool())
        app.add_url_rule("/", view_func=lambda: 1 / 0)
        app.register_error_handler(ZeroDivisionError, lambda error: flask.abort(503))
        assert "Retry-After" not in app.test_client().get("/").headers  # not every 503 is ours
        app = make(FlaskPool())

        @app.get("/")
        def view() -> str:
            raise PoolTimeout("t")

        assert app.test_client().get("/").headers["Retry-After"] == "1"

    @pytest.mark.parametrize("kind", [PoolTimeout, PoolError])
    @pytest.mark.parametrize("early", [True, False])
    def test_the_apps_own_handler_comes_first(self, make: Make, url: str, kind: Any, early: bool) -> None:
        app = Flask("shop")
        app.config["THREADPOOL_DB_URL"] = url

        def mine(error: PoolError) -> tuple[str, int]:
            return f"mine: {error}", 429

        if early:
            app.register_error_handler(kind, mine)
        FlaskPool(app)
        if not early:
            app.register_error_handler(kind, mine)

        @app.get("/")
        def view() -> str:
            raise PoolTimeout("t")

        answer = app.test_client().get("/")
        assert (answer.status_code, answer.text) == (429, "mine: t")

    def test_a_blueprints_handler_comes_first_too(self, make: Make) -> None:
        app, blueprint = make(FlaskPool()), flask.Blueprint("cart", "cart", url_prefix="/cart")

        @blueprint.get("/")
        def view() -> str:
            raise PoolTimeout("t")

        blueprint.register_error_handler(Exception, lambda error: ("the cart's", 500))
        app.register_blueprint(blueprint)
        assert app.test_client().get("/cart/").text == "the cart's"

    @pytest.mark.parametrize("kind", [503, HTTPException])
    def test_the_apps_own_page_for_503_is_used(self, make: Make, kind: Any) -> None:
        app = self.app(make, PoolTimeout("who holds what"))
        app.register_error_handler(kind, lambda error: (f"page for {error.code}, {error.retry_after} s", error.code))
        answer = app.test_client().get("/")
        assert (answer.status_code, answer.text, answer.headers["Retry-After"]) == (503, "page for 503, 3 s", "3")

    def test_such_a_page_may_say_when_to_come_again_or_be_none(self, make: Make) -> None:
        app = self.app(make, PoolTimeout("t"))
        app.register_error_handler(503, lambda error: ("later", 503, {"Retry-After": "60"}))
        assert app.test_client().get("/").headers["Retry-After"] == "60"
        app = self.app(make, PoolTimeout("t"))
        app.register_error_handler(503, lambda error: "from the cache")
        answer = app.test_client().get("/")
        assert (answer.status_code, "Retry-After" in answer.headers) == (200, False)

    def test_a_handler_for_every_exception_gets_what_flask_makes_of_it(self, make: Make) -> None:
        app = self.app(make, PoolTimeout("t"))

        @app.errorhandler(Exception)
        def every(error: Exception) -> Any:
            return error if isinstance(error, HTTPException) else ("went wrong", 500)

        app.add_url_rule("/wrong", view_func=lambda: 1 / 0)
        assert app.test_client().get("/wrong").text == "went wrong"
        answer = app.test_client().get("/")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")

    def test_other_errors_of_the_pool_are_the_apps(self, make: Make) -> None:
        app = self.app(make, PoolMisuse("mine"), TESTING=True)
        with pytest.raises(PoolMisuse, match="mine"):
            app.test_client().get("/")

    def test_who_traps_http_errors_gets_the_refusal_itself(self, make: Make) -> None:
        app = self.app(make, PoolTimeout("t"), TRAP_HTTP_EXCEPTIONS=True, TESTING=True)
        with pytest.raises(PoolTimeout, match="t"):
            app.test_client().get("/")

    @pytest.mark.parametrize("late", [False, True])
    def test_one_in_a_streamed_body_becomes_503_as_long_as_nothing_was_sent(
        self, app: Flask, pool: FlaskPool, late: bool
    ) -> None:
        @app.get("/")
        def view() -> Response:
            def body() -> Iterator[str]:
                if late:
                    yield "first"
                pool.execute("begin")
                raise PoolTimeout("t")

            return Response(stream_with_context(body()))

        app.config["THREADPOOL_DB_RETRY_AFTER"] = 7
        response = serve(app)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if late else "ignore")
            if late:
                with pytest.raises(PoolTimeout):
                    response.read()
            else:
                assert b"busy" in response.read()
                assert (response.status[:4], response.headers["Retry-After"]) == ("503 ", "7")
        assert in_use(app) == 0

    def test_one_that_only_flask_sees_becomes_503_too(self, make: Make) -> None:
        """Where the session is opened no error handler is asked: Flask itself makes a 500 of it."""
        pool = FlaskPool()
        app = make(pool)

        class Sessions(SecureCookieSessionInterface):
            def open_session(self, app: Any, request: Any) -> Any:
                pool.execute(PIN)
                raise PoolTimeout("t")

        closed: list[int] = []
        app.session_interface = Sessions()

        @app.after_request
        def watch(response: Response) -> Response:
            response.call_on_close(lambda: closed.append(1))
            return response

        response = serve(app)
        assert in_use(app) == 0
        assert b"busy" in response.read() and response.status.startswith("503 ") and closed == [1]


class TestCommands:
    @pytest.fixture
    def database(self, url: str) -> None:
        with create_pool(url) as pool:
            pool.execute("create table t (x int)")

    def test_check_connects_step_by_step(self, make: Make, url: str, database: None) -> None:
        app = make(FlaskPool(max_size=7))
        found = app.test_cli_runner().invoke(args=["threadpool-db", "check", "--json", "--workers", "3"])
        told = json.loads(found.stdout)
        assert (found.exit_code, told["ok"], "arithmetic" in told["facts"]) == (0, True, True)
        assert app.extensions["threadpool_db"]["THREADPOOL_DB"]._made is None

    def test_check_does_the_arithmetic_of_the_apps_own_max_size(self, make: Make, postgres: Any) -> None:
        app = make(FlaskPool(max_size=7), THREADPOOL_DB_URL=postgres.url)
        found = app.test_cli_runner().invoke(args=["threadpool-db", "check", "--workers", "3"])
        assert found.exit_code == 0 and "3 x 7 = 21 connections" in found.stdout

    def test_check_fails_with_the_step_and_without_the_password(self, make: Make) -> None:
        app = make(
            FlaskPool(), THREADPOOL_DB_URL="postgresql://bob:secret@127.0.0.1:1/shop", THREADPOOL_DB_MAX_SIZE="inf"
        )
        found = app.test_cli_runner().invoke(args=["threadpool-db", "check"])
        assert found.exit_code == 1 and "check: tcp failed" in found.output and "secret" not in found.output

    def test_which_of_several_must_be_said(self, make: Make, url: str, database: None) -> None:
        own = FlaskPool(prefix="OWN", pool=lambda app: create_pool(url))
        app = make(FlaskPool(), FlaskPool(prefix="ARCHIVE_DB"), own, ARCHIVE_DB_URL=url)
        run = app.test_cli_runner().invoke
        for wrong in ([], ["OTHER_DB"]):
            found = run(args=["threadpool-db", "check", *wrong])
            assert found.exit_code == 2 and "name one of the app's pools: THREADPOOL_DB, ARCHIVE_DB" in found.output
        assert run(args=["threadpool-db", "check", "ARCHIVE_DB"]).exit_code == 0
        found = run(args=["threadpool-db", "check", "OWN"])
        assert found.exit_code == 2 and "OWN: this pool was made in code" in found.output

    def test_options_shows_what_was_set_where_and_no_secret(self, make: Make, url: str) -> None:
        archive = FlaskPool(
            prefix="ARCHIVE_DB", pool=lambda app: create_pool(url, max_size=4, init_sql="pragma x = secret")
        )
        app = make(FlaskPool(timeout=3.0, init_sql="select 'secret'"), archive, THREADPOOL_DB_MAX_SIZE="7",
                   THREADPOOL_DB_URL="postgresql://bob:secret@h/shop?sslpassword=secret")  # fmt: skip
        found = app.test_cli_runner().invoke(args=["threadpool-db", "options"])
        assert found.exit_code == 0 and "secret" not in found.output
        lines = [re.split(r" {2,}", line.strip()) for line in found.output.splitlines()]
        assert ["THREADPOOL_DB_URL", "postgresql://bob:***@h/shop?sslpassword=***"] in lines
        assert ["THREADPOOL_DB_MAX_SIZE", "7", "app.config['THREADPOOL_DB_MAX_SIZE']"] in lines
        assert ["THREADPOOL_DB_TIMEOUT", "3.0", "code"] in lines
        assert ["THREADPOOL_DB_INIT_SQL", "...", "code"] in lines
        assert ["THREADPOOL_DB_CHECKOUT", "'operation'"] in lines
        assert ["ARCHIVE_DB_MAX_SIZE", "4"] in lines and ["ARCHIVE_DB: made in code"] in lines


class TestBesideFlaskSQLAlchemy:
    @pytest.fixture
    def shop(self, db_url: str, make: Make) -> Iterator[tuple[Flask, FlaskPool, Any]]:
        pool = FlaskPool(max_size=2)
        app = make(pool, THREADPOOL_DB_URL=db_url, SQLALCHEMY_DATABASE_URI=with_plugin(
            db_url, pool_size=1, max_overflow=0, pool_timeout=0.05))  # fmt: skip
        db = flask_sqlalchemy.SQLAlchemy(app)

        class Item(db.Model):  # type: ignore[name-defined, misc]
            __tablename__ = "threadpool_db_flask_item"
            id = db.mapped_column(sqlalchemy.Integer, primary_key=True)
            name = db.mapped_column(sqlalchemy.String(20))

        @app.post("/items/<name>")
        def add(name: str) -> str:
            db.session.add(Item(name=name))
            db.session.commit()
            return str(pool.execute("select name from threadpool_db_flask_item order by id desc")[0][0])

        with app.app_context():
            db.drop_all()
            db.create_all()
        yield app, pool, db
        with app.app_context():
            db.drop_all()
            db.engine.dispose()

    def test_both_serve_one_app(self, shop: tuple[Flask, FlaskPool, Any]) -> None:
        app, _, db = shop
        for name in ("one", "two"):
            assert app.test_client().post(f"/items/{name}").text == name
        assert in_use(app) == 0
        with app.app_context():
            assert db.engine.pool.checkedout() == 0

    def test_threadpools_refusals_become_503_too(self, shop: tuple[Flask, FlaskPool, Any]) -> None:
        app, _, db = shop
        with app.app_context(), db.engine.connect():
            answer = background(app.test_client().post, "/items/three").result(SOON)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")

    def test_they_do_by_the_middleware_alone_where_flask_lets_them_pass(self, url: str, tmp_path: Path) -> None:
        app = Flask("shop")
        app.config.update(SQLALCHEMY_DATABASE_URI=with_plugin(url, pool_size=1, max_overflow=0, pool_timeout=0.05),
                          PROPAGATE_EXCEPTIONS=True)  # fmt: skip
        db = flask_sqlalchemy.SQLAlchemy(app)
        app.add_url_rule("/", view_func=lambda: str(db.session.scalar(sqlalchemy.text("select 1"))))
        with create_pool(url) as other, app.app_context(), db.engine.connect():
            response = background(test_wsgi.Response, PoolMiddleware(app, other), "/").result(SOON)
            assert response.status.startswith("503 ")
        with app.app_context():
            db.engine.dispose()


def test_the_samples_of_the_page_run_as_they_stand(tmp_path: Path, url: str) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "flask.md").read_text()
    first, *samples = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(samples) == 5
    space: dict[str, Any] = {
        "__name__": "shop", "Response": Response, "stream_with_context": stream_with_context,
        "create_pool": create_pool,
        "connect": lambda: sqlite3.connect(tmp_path / "special.db", check_same_thread=False),
        "pytest": SimpleNamespace(fixture=lambda function: function),
    }  # fmt: skip
    exec(first, space)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("URL", "ARCHIVE"):
            patch.setenv(f"FLASK_THREADPOOL_DB_{name}" if name == "URL" else "FLASK_ARCHIVE_DB_URL", url)
        app = space["app"] = space["create_app"]()
        for sample in samples:
            exec(sample, space)
        pool, archive, special = space["pool"], space["archive"], space["special"]
        archive.init_app(app)
        special.init_app(app)
        app.add_url_rule("/away", view_func=lambda: pool.execute("select 1", timeout=0))
        client = app.test_client()
        with app.app_context():
            pool.execute("create table account (id integer primary key, balance integer)")
            pool.execute("insert into account values (1, 9)")
            assert archive.execute("select balance from account") == [(9,)] and special.execute("select 1") == [(1,)]
            assert special.name == "shop"
        assert client.post("/pay").json == {"left": 4}
        assert client.get("/export").text == "1,4\n"
        leases = [real(app).checkout() for _ in range(10)]
        answer = background(client.get, "/away").result(SOON)
        assert (answer.status_code, answer.text, answer.headers["Retry-After"]) == (503, "One moment, please.", "1")
        for lease in leases:
            lease.checkin()
        (tmp_path / "tests").mkdir()
        fixture = space["app"](tmp_path / "tests", patch)
        with next(fixture).app_context():
            assert pool.execute("select 1") == [(1,)] and (tmp_path / "tests" / "test.db").exists()
        assert next(fixture, None) is None
    for one in app.extensions["threadpool_db"].values():
        one.pool.close()
