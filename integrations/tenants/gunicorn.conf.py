"""What must gunicorn know of many databases? Nothing. A configuration to copy: `gunicorn` in this folder reads it.

The settings that matter to a pool are explained in ../gunicorn/gunicorn.conf.py; here are their values.
"""

import logging

from threadpool_db.ext.gunicorn import worker_exit  # noqa: F401

wsgi_app = "app:create_app()"
bind = "127.0.0.1:8000"

# The servers together see at most workers x CAP connections (here 2 x 10), however many tenants there are.
worker_class = "gthread"
workers = 2
threads = 8

# Import the app once, in the master, and fork. A budget is each worker's own.
preload_app = True

graceful_timeout = 15
keepalive = 10

# A transaction that a request forgot, and why another one got its 503, is told in Python's log.
logging.basicConfig(format="%(message)s")
