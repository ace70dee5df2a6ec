"""How does SQLAlchemy use this pool? ``create_engine(url, poolclass=ThreadPool)``, with QueuePool's own arguments.

Or by the URL alone, ``?plugin=threadpool_db``. The rooms: ``pool``, the face that SQLAlchemy sees; ``records``, who
gets a connection and when; ``thrift``, which of SQLAlchemy's round trips may be left out; ``plugin``, the URL;
``tenants``, engines for hundreds of databases.
"""

from threadpool_db.ext.sqlalchemy.pool import ThreadPool
from threadpool_db.ext.sqlalchemy.records import CheckoutOverloaded, CheckoutTimeout, CheckoutUnavailable
from threadpool_db.ext.sqlalchemy.tenants import TenantEngines

__all__ = ["CheckoutOverloaded", "CheckoutTimeout", "CheckoutUnavailable", "TenantEngines", "ThreadPool"]
