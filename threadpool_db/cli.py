"""What can be asked from a shell? ``threadpool-db COMMAND``, also as ``python -m threadpool_db``.

A command is one function that adds its arguments to a parser and names what runs them: see ``_COMMANDS``. What it does
stands in a room of its own, imported when it is called. 0: all well; 1: not; 2: the command line is wrong.

No message of the command line itself quotes an argument: argparse's do, and an argument may be a URL with a password.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

INTERRUPTED = 130  # as a shell has it after Ctrl-C


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        about = message.partition(":")[0] if message.startswith("argument ") else ""
        if message.startswith("the following arguments are required"):
            about = message
        elif message.startswith("unrecognized arguments"):
            about = "there are arguments that are not known"
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {about or 'cannot be read'}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    parser = _Parser(prog="threadpool-db", description="The database connection pool for threaded Python.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=_Parser)
    for name, (words, add) in _COMMANDS.items():
        command = commands.add_parser(name, help=words, description=words, allow_abbrev=False)
        command.set_defaults(run=add(command))
    given = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = given.run
    try:
        return run(given)
    except KeyboardInterrupt:
        print(f"threadpool-db {given.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # as by ``| head``: who reads has seen enough. What is still to be flushed goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _check(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    parser.add_argument("url", help="as for create_pool; '-' reads it from standard input, where ps does not see it")
    parser.add_argument("--driver", choices=("psycopg2", "psycopg", "pymysql", "sqlite"), help="if not the url's")
    parser.add_argument("--timeout", type=_seconds, default=5.0, help="seconds that each step may take (5)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, at the end")
    parser.add_argument("--workers", type=_whole, help="processes that will have a pool: does it fit?")
    parser.add_argument("--max-size", type=_whole, help="max_size of each pool: does it fit?")
    return _run_check


def _run_check(given: argparse.Namespace) -> int:
    from threadpool_db.checkup.report import Report
    from threadpool_db.checkup.steps import check

    url = sys.stdin.readline().strip() if given.url == "-" else given.url
    report = Report(url, sys.stdout, sys.stderr, as_json=given.json)
    return check(report, url, given.driver, given.timeout, given.workers, given.max_size)


def _simulate(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    parser.add_argument("file", nargs="?", help="a scenario in JSON, or TOML; options given here come before its own")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--svg", metavar="FILE", help="draw waits, requests and connections over time there")
    load, pool, many = (
        parser.add_argument_group("the load, in seconds"),
        parser.add_argument_group("the pool, as create_pool"),
        parser.add_argument_group("many of them, as TenantPools"),
    )
    for group, name, kind, words in (
        (load, "rate", float, "requests a second, at random moments"),
        (load, "burst", int, "so many at once"),
        (load, "burst-at", float, "when (0)"),
        (load, "threads", int, "so many, each asking again when it has thought"),
        (load, "think", float, "on average (0.1)"),
        (load, "service", float, "of a use, on average (0.02)"),
        (load, "spread", str, "of the uses: fixed, exponential or lognormal (fixed)"),
        (load, "sigma", float, "of lognormal (1)"),
        (load, "connect", float, "of a connect (0.005)"),
        (load, "outage", str, "FROM,UNTIL: connects fail, and what was connected is dead"),
        (load, "duration", float, "to be simulated (60)"),
        (load, "warm-up", float, "of these, not counted (0)"),
        (load, "seed", int, "of chance (1)"),
        (pool, "max-size", float, "(10)"),
        (pool, "min-size", int, "(0)"),
        (pool, "max-connecting", float, "(2)"),
        (pool, "timeout", float, "(10)"),
        (pool, "max-waiting", int, "(no limit)"),
        (pool, "max-idle", float, "(300)"),
        (pool, "shed", str, "off, default, or TARGET,INTERVAL of CoDel (off)"),
        (pool, "sizing", str, "elastic, fixed, overflow:EXTRA[,LINGER] or sojourn:CORE (elastic)"),
        (many, "tenants", int, "each request is for one of so many"),
        (many, "zipf", float, "the n-th of them is asked for as often as 1 / n ** ZIPF (1)"),
        (many, "budget", int, "connections of each process at most"),
        (many, "per-tenant-max", int, "connections of each tenant in each process at most (5)"),
        (many, "servers", int, "which the tenants are spread over (1)"),
        (many, "processes", int, "which the requests are spread over (1)"),
    ):
        given = name.upper().replace("-", "_")
        group.add_argument(f"--{name}", type=kind, help=words, metavar=given, default=argparse.SUPPRESS)
    return _run_simulate


def _run_simulate(given: argparse.Namespace) -> int:
    from threadpool_db.forecast import forecast

    options = dict(vars(given))
    for name in ("run", "command"):
        del options[name]
    path, as_json, svg = options.pop("file"), options.pop("json"), options.pop("svg")
    return forecast(path, options, sys.stdout, sys.stderr, as_json, svg)


def _size(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--svg", metavar="FILE", help="draw there what each size gives")
    app, more = (
        parser.add_argument_group("the app and its server; what is not given is asked for, in a terminal"),
        parser.add_argument_group("more about it"),
    )
    for group, name, words in (
        (app, "workers", "processes that have a pool, on all machines"),
        (app, "threads", "in each of them"),
        (app, "database", "time of a request in the database, in all: 0.02, 20ms"),
        (app, "outside", "time of a request elsewhere: 0.08, 80ms"),
        (app, "server-limit", "connections that the server allows"),
        (more, "others", "of these, what the app cannot have (3)"),
        (more, "operations", "statements or transactions of a request (3)"),
        (more, "rate", "requests a second of all workers, at the busiest time (all threads always busy)"),
        (more, "timeout", "the pool's (10)"),
        (more, "wait", "that one in a hundred borrowers may have (a tenth of a request)"),
        (more, "seed", "of chance (1)"),
    ):
        group.add_argument(f"--{name}", help=words, default=argparse.SUPPRESS, metavar=name.upper().replace("-", "_"))
    words = "requests rely on their session: SET, temporary tables, one transaction all along"
    more.add_argument("--session", action="store_true", help=words, default=argparse.SUPPRESS)
    return _run_size


def _run_size(given: argparse.Namespace) -> int:
    from threadpool_db.sizer import size

    options = dict(vars(given))
    for name in ("run", "command"):
        del options[name]
    as_json, svg = options.pop("json"), options.pop("svg")
    return size(options, sys.stdin, sys.stdout, sys.stderr, as_json, svg)


_COMMANDS = {
    "check": ("Connect to a database step by step, and say what a pool should know of its server.", _check),
    "simulate": ("What would happen at this load? The pool's own rules, without a database.", _simulate),
    "size": ("Which checkout policy, and how many connections? Asks, and answers with the reasons.", _size),
}


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise ValueError
    return seconds


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
