"""What do gunicorn's hooks say, and what do they leave behind? With workers of straw, and with real ones."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("gunicorn")

from tests.faults.bank import Site, eventually
from tests.faults.gunicorns import Gunicorn
from tests.scene import SOON, background
from threadpool_db import PoolClosed, create_pool, fork
from threadpool_db.ext import gunicorn as hooks
from threadpool_db.keeper import keeper_of
from threadpool_db.testing import ScriptedDriver
from threadpool_db.waiting import REAL_TIME, Gate


class Log:
    """gunicorn's, as far as hooks use it."""

    def __init__(self):
        self.warnings, self.details = [], []

    def warning(self, text, *parameters):
        self.warnings.append(text % parameters)

    def debug(self, text, *parameters, exc_info=False):
        self.details.append(text % parameters)


def worker(age=1, pid=None, log=None, **settings):
    settings = {"workers": 1, "threads": 8, "graceful_timeout": 30, **settings}
    return SimpleNamespace(age=age, pid=pid or os.getpid(), cfg=SimpleNamespace(**settings), log=log or Log())


@pytest.fixture
def living(monkeypatch):
    """The pools of the worker: no others of this process. Nothing has been said yet."""
    pools = []
    monkeypatch.setattr(fork, "pools", lambda: list(pools))
    monkeypatch.setattr(hooks, "_said", mmap.mmap(-1, mmap.PAGESIZE))
    yield pools
    for pool in pools:
        pool.close(timeout=0)


def said(one, *pools):
    """All that this worker says at its start, when the servers have answered, too."""
    hooks.post_worker_init(one)
    for pool in pools:
        gate = Gate(REAL_TIME)
        keeper_of(REAL_TIME).do(("limits", pool.name), gate.open, 1)  # behind the question to its server
        gate.sleep(REAL_TIME, time.monotonic() + SOON)
    return one.log.warnings


# Threads and connections ----------------------------------------------------------------------------------------------


def test_more_threads_than_sticky_connections_are_said_with_numbers_and_remedies(living, tmp_path):
    living.append(create_pool(f"sqlite:///{tmp_path}/x.db", max_size=3, checkout="thread", name="books"))
    assert said(worker(threads=8)) == [
        "threadpool_db: pool 'books': a worker has 8 threads and 3 connections, which "
        'checkout="thread" keeps for '
        "whole requests: the other 5 threads wait until one ends; set max_size=8, threads = 3, or "
        'checkout="operation"'
    ]


def test_enough_connections_and_those_of_an_operation_are_no_news(living, tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    living += [create_pool(url, max_size=8, checkout="thread"), create_pool(url, max_size=3)]
    assert said(worker(threads=8)) == []


def test_a_pool_that_was_closed_is_no_news(living, tmp_path):
    living.append(create_pool(f"sqlite:///{tmp_path}/x.db", max_size=3, checkout="thread"))
    living[0].close()
    assert said(worker(threads=8)) == []


@pytest.mark.parametrize("first", [1, 4, 5, 6])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_of_as_many_workers_as_there_are_at_a_time_one_speaks(living, first, workers, monkeypatch, tmp_path):
    living.append(create_pool(f"sqlite:///{tmp_path}/x.db", max_size=3, checkout="thread"))
    monkeypatch.setattr(hooks, "_said", bytearray())  # nobody remembers
    log = Log()
    for age in range(first, first + workers):
        hooks.post_worker_init(worker(age, workers=workers, log=log))
    assert len(log.warnings) == 1


def test_what_was_said_is_not_said_again_by_a_worker_that_comes_later(living, tmp_path):
    living.append(create_pool(f"sqlite:///{tmp_path}/x.db", max_size=3, checkout="thread"))
    pid = os.fork()
    if pid == 0:
        hooks.post_worker_init(worker(threads=8))
        os._exit(0)
    os.waitpid(pid, 0)
    assert said(worker(age=2, threads=8)) == []
    assert len(said(worker(age=3, threads=9))) == 1, "another finding is"


def test_more_is_said_than_can_be_remembered(living):
    log = Log()
    for number in range(mmap.PAGESIZE // 16 + 1):
        hooks._say(worker(log=log), f"finding {number}")
    hooks._say(worker(log=log), "finding 1")
    assert len(log.warnings) == mmap.PAGESIZE // 16 + 1


# Workers and servers --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["postgres", "mariadb"])
def server(request):
    pytest.importorskip("psycopg2" if request.param == "postgres" else "pymysql")
    return request.getfixturevalue(request.param)


def allowed(server):
    site = Site(server, tls=False)
    return int(
        site.command("show max_connections" if site.postgresql else "show variables like 'max_connections'")[0][-1]
    )


def test_pools_that_do_not_fit_in_their_server_are_said_together(living, server):
    most = allowed(server)
    living += [create_pool(server.url, max_size=20, name=name) for name in ("a", "b")]
    living.append(create_pool(lambda: None, name="c"))
    workers = most // 40 + 1
    assert said(worker(workers=workers), living[0]) == [
        f"threadpool_db: pools 'a', 'b' together, workers x max_size: {workers} x 40 = {workers * 40} connections do "
        f"not fit: the server allows {most}; max_size={most // workers} at most, a higher limit, or a pooler; not "
        "counted, for their server is not known: 'c'"
    ]
    assert said(worker(workers=workers - 1), living[0]) == [], "those do fit"


def test_for_others_than_superusers_some_connections_are_reserved(living, postgres):
    pytest.importorskip("psycopg2")
    site = Site(postgres, tls=False)
    site.create_user()
    most = allowed(postgres)
    living.append(site.pool(max_size=most, name="a"))
    [message] = said(worker(), living[0])
    assert f"the server allows {most - 3}; max_size={most - 3} at most" in message
    eventually(lambda: not site.sessions(), "what asked is gone")


def test_a_pool_without_a_limit_of_its_own_and_one_behind_a_pooler_are_not_held_against_it(living, postgres):
    pytest.importorskip("psycopg2")
    living.append(create_pool(postgres.url, max_size=float("inf"), name="a"))
    living.append(create_pool(postgres.url, max_size=5000, name="b", server_pooler=True))
    one = worker()
    assert said(one, *living) == [] and one.log.details == []


def test_a_server_that_does_not_answer_delays_no_worker_and_is_a_matter_for_debugging(living, server, proxy):
    between = proxy(server.port)
    between.set(mode="blackhole")
    url = server.url.replace(str(server.port), str(between.port))
    living.append(create_pool(url, name="a", connect_timeout=0.5))
    one = worker()
    begun = time.monotonic()
    hooks.post_worker_init(one)
    assert time.monotonic() - begun < 0.4
    eventually(lambda: one.log.details, "it was given up")
    assert one.log.details == ["threadpool_db: pool 'a': its server's limits are unknown: OperationalError"]
    assert one.log.warnings == []


def test_an_answer_that_does_not_end_is_cut(living, server, proxy, monkeypatch):
    between = proxy(server.port)
    url = server.url.replace(str(server.port), str(between.port))
    living.append(create_pool(url, name="a", check_timeout=0.3))
    connect = living[0]._upkeep.driver.connect

    def then_silent(timeout):
        connection = connect(timeout)
        between.set(mode="blackhole")
        return connection

    monkeypatch.setattr(living[0]._upkeep.driver, "connect", then_silent)
    one = worker()
    hooks.post_worker_init(one)
    eventually(lambda: one.log.details, "it was given up")
    assert one.log.warnings == []


def test_an_error_in_a_hook_ends_no_worker(living):
    broken = worker()
    del broken.cfg.threads
    hooks.post_worker_init(broken)
    assert broken.log.details == ["threadpool_db: the hook post_worker_init failed"]


# The end of a worker --------------------------------------------------------------------------------------------------


def test_the_pools_of_a_worker_are_closed_and_what_is_lent_gets_a_moment(living):
    pool = create_pool(ScriptedDriver(), max_size=2)
    living.append(pool)
    lent, ready = [], threading.Event()

    def work():
        lent.append(pool.checkout())
        ready.set()
        eventually(lambda: pool.closed, "the worker is about to end")
        lent[0].checkin()

    done = background(work)
    assert ready.wait(SOON)
    begun = time.monotonic()
    hooks.worker_exit(None, worker())
    assert time.monotonic() - begun < fork.FAREWELL and pool.closed
    done.result(SOON)
    assert pool.stats().total == 0


def test_what_is_lent_for_longer_is_cut(living):
    living.append(create_pool(ScriptedDriver(), max_size=2))
    lease = background(living[0].checkout).result(SOON)
    begun = time.monotonic()
    hooks.worker_exit(None, worker(graceful_timeout=0))
    assert time.monotonic() - begun < fork.FAREWELL, "no longer than graceful_timeout"
    with pytest.raises(Exception, match="closed"):
        lease.connection  # noqa: B018
    with pytest.raises(PoolClosed):
        living[0].checkout()


def test_in_the_master_the_pools_stay_open_for_the_workers_to_come(living):
    living.append(create_pool(ScriptedDriver(), max_size=2))
    hooks.worker_exit(None, worker(pid=os.getpid() + 1))
    assert not living[0].closed


def test_one_pool_that_does_not_close_well_keeps_no_other_one_open(living, monkeypatch):
    living += [create_pool(ScriptedDriver(), name=name) for name in ("a", "b")]

    def broken(timeout):
        raise OSError("the last word")

    monkeypatch.setattr(living[0], "close", broken)
    one = worker()
    hooks.worker_exit(None, one)
    assert living[1].closed and one.log.details == ["threadpool_db: pool 'a' did not close well"]
    monkeypatch.undo()


def test_an_engine_is_closed_too_and_what_it_has_lent_closes_when_it_comes_back(living, engine_for, tmp_path):
    engine = engine_for(f"sqlite:///{tmp_path}/x.db")
    living.append(engine.pool._inner)
    with engine.connect() as connection:
        engine.connect().close()
        assert engine.pool.stats().idle == 1
        hooks.worker_exit(None, worker(graceful_timeout=0))
        assert engine.pool.stats().idle == 0
        assert connection.exec_driver_sql("select 1").scalar() == 1
    assert engine.pool.stats().total == 0


# Real ones ------------------------------------------------------------------------------------------------------------

OWN = """
from threadpool_db.ext import gunicorn as pools

def post_worker_init(worker):
    pools.post_worker_init(worker)
    worker.log.warning("and our own")

def worker_exit(server, worker):
    pools.worker_exit(server, worker)
    worker.log.warning("our own end")
"""


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
def test_a_real_gunicorn_says_it_once_and_again_when_it_has_changed(preload, tmp_path):
    options = {"max_size": 2, "checkout": "thread"}
    url = f"sqlite:///{tmp_path}/x.db"
    with Gunicorn(tmp_path, url, options=options, config=OWN, threads=4, preload_app=preload) as gunicorn:
        eventually(lambda: gunicorn.log().count("and our own") == 2, "both workers are up")
        for one in gunicorn.workers():
            gunicorn.kill(one)
        eventually(lambda: gunicorn.log().count("and our own") == 4, "their successors are up")
        assert gunicorn.log().count("a worker has 4 threads and 2 connections") == 1
        gunicorn.configure(threads=5)
        gunicorn.reload()
        eventually(lambda: gunicorn.log().count("and our own") == 6, "those after them are up")
        assert gunicorn.log().count("a worker has 5 threads and 2 connections") == 1
        assert gunicorn.stop(signal.SIGTERM) == 0
    assert gunicorn.log().count("our own end") == 4, "two were killed"
