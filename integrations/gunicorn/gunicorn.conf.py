"""What must gunicorn know of the pool? Almost nothing. A configuration to copy: `gunicorn` in this folder reads it.

Settings that matter to a pool carry the reason; the command line overrides all of them.
"""

import logging

# Not needed for safety. At the start they say in gunicorn's log where threads, connections and the server's limits do
# not fit together; at the end they close the pools, and have ended at the server what hangs there.
from threadpool_db.ext.gunicorn import post_worker_init, worker_exit  # noqa: F401

wsgi_app = "app:application"
bind = "127.0.0.1:8000"

# Threads share the worker's pool; processes share nothing. The database sees at most
#     workers x max_size     (here 2 x 4, and 2 x 2 of the ORM's engine)
# connections, and that must fit under its own limit (PostgreSQL: max_connections, 100 by default). More threads than
# connections is right: a thread that renders, or calls somebody else's service, needs no connection meanwhile.
worker_class = "gthread"
workers = 2
threads = 8

# Import the app once, in the master, and fork. The pool made at import needs no post_fork hook: a forked worker forgets
# what it inherited, never closes it (it is the master's), and connects for itself on its first request.
preload_app = True

# At a stop requests have this long to finish, then the worker is killed, without its hooks: the database sees its
# connections break. Longer than the slowest request plus the pool's timeout.
graceful_timeout = 15

# This one looks at the worker's main loop and not at its threads: a request that hangs, or waits for a connection, is
# never ended by it. The pool's own `timeout`, answered with 503, is what protects against that.
timeout = 30

# Behind a proxy that reuses its connections: longer than the proxy keeps them, or a request may meet a closing one.
keepalive = 10

# The pool says in Python's log why a request got its 503, and who holds the connections. It goes where gunicorn's goes.
logging.basicConfig(format="%(message)s")
