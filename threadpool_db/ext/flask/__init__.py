"""How does a Flask app get its pool? ``pool = FlaskPool()``, ``pool.init_app(app)``, and a URL in ``app.config``.

The rooms: ``extension``, the object that views use; ``settings``, what ``app.config`` says; ``requests``, when a
request or an app context lets go, and what a client is told for whom there was no connection; ``commands``,
``flask threadpool-db``.
"""

from threadpool_db.ext.flask.extension import FlaskPool

__all__ = ["FlaskPool"]
