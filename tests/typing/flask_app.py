"""Is FlaskPool typed as the pool that it stands for? Checked by mypy and never run."""

from __future__ import annotations

from flask import Flask
from typing_extensions import assert_type

from threadpool_db import Pool, Result, Snapshot, create_pool
from threadpool_db.database import Face
from threadpool_db.ext.flask import FlaskPool

pool = FlaskPool(max_size=10, checkout="thread")
archive = FlaskPool(prefix="ARCHIVE_DB", url="sqlite:///archive.db")


def ready(app: Flask) -> Pool:
    return create_pool("sqlite:///own.db")


own = FlaskPool(pool=ready, prefix="OWN_DB")


def create_app() -> Flask:
    app = Flask(__name__)
    pool.init_app(app)

    @app.get("/")
    def view() -> str:
        assert_type(pool.execute("select 1", timeout=2), Result)
        with pool.transaction(timeout=1.0) as connection:
            connection.cursor().execute("select 1")
        assert_type(pool.stats(), Snapshot)
        assert_type(pool.current, Face)
        return pool.name

    return app
