"""What must gunicorn know of the pool? Nothing. A configuration to copy: `gunicorn` in this folder reads it.

The settings that matter to a pool are explained in ../gunicorn/gunicorn.conf.py; here are their values.
"""

import logging

wsgi_app = "app:create_app()"
bind = "127.0.0.1:8000"

# The database sees at most workers x max_size connections (here 2 x 4).
worker_class = "gthread"
workers = 2
threads = 8

# Import the app once, in the master, and fork. Nothing is opened before the first request.
preload_app = True

graceful_timeout = 15
keepalive = 10

# The pool says in Python's log why a request got its 503, and who holds the connections. It goes where gunicorn's goes.
logging.basicConfig(format="%(message)s")
