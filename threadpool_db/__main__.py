"""``python -m threadpool_db`` is the command ``threadpool-db``."""

import sys

from threadpool_db.cli import main

if __name__ == "__main__":
    sys.exit(main())
