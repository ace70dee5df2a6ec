"""Do programs that know PEP 249, and nothing of us, run on a proxy? pandas, peewee, a hand-written DAO, the docs."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import SOON, Db, prepared
from tests.drivers.test_examples import example
from threadpool_db import create_pool

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def db(any_db_url: str) -> Iterator[Db]:
    with prepared(any_db_url) as db:
        yield db


@pytest.fixture(params=["operation", "thread"])
def policy(request: pytest.FixtureRequest) -> str:
    policy: str = request.param
    return policy


class TestPandas:
    @pytest.fixture(autouse=True)
    def _quiet(self) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pandas only supports SQLAlchemy")
            yield

    @pytest.mark.parametrize("autocommit", [True, False])
    def test_reads_a_table_and_holds_nothing_afterwards(self, db: Db, policy: str, autocommit: bool) -> None:
        pandas = pytest.importorskip("pandas")
        pool = db.pool(checkout=policy, max_size=1)
        proxy = pool.proxy(autocommit=autocommit)
        proxy.cursor().executemany(f"insert into {db.table} values ({db.mark})", [(n,) for n in range(1000)])
        proxy.commit()
        frame = pandas.read_sql(f"select id, id * 2 as twice from {db.table} order by id", proxy)
        assert list(frame.columns) == ["id", "twice"]
        assert (len(frame), int(frame["twice"].sum())) == (1000, 999000)
        some = pandas.read_sql(f"select id from {db.table} where id < {db.mark}", proxy, params=(3,), index_col="id")
        assert list(some.index) == [0, 1, 2]
        chunks = pandas.read_sql(db.select, proxy, chunksize=300)
        assert [len(chunk) for chunk in chunks] == [300, 300, 300, 100]
        proxy.rollback()
        pool.release()
        assert pool.stats().in_use == 0

    def test_writes_a_table_of_sqlite(self, tmp_path: Path) -> None:
        pandas = pytest.importorskip("pandas")
        with create_pool(f"sqlite:///{tmp_path}/pandas.db") as pool:
            pandas.DataFrame({"a": [1, 2, 3]}).to_sql("numbers", pool.proxy(), index=False)
            assert pool.execute("select sum(a) from numbers") == [(6,)]


class TestPeewee:
    @pytest.fixture
    def database(self, db: Db, policy: str) -> Iterator[Any]:
        pytest.importorskip("peewee")
        kinds = example("pooled_peewee")
        pool = db.pool(checkout=policy, max_size=3)
        kind = {"sqlite": kinds.PooledSqlite, "pymysql": kinds.PooledMySQL}.get(db.name, kinds.PooledPostgresql)
        database = kind(pool, **({"prefer_psycopg3": True} if db.name == "psycopg" else {}))
        yield database
        database.close()
        pool.release()
        assert pool.stats().in_use == 0

    @pytest.fixture
    def account(self, database: Any, db: Db) -> Iterator[Any]:
        import peewee

        class Account(peewee.Model):
            name = peewee.CharField(unique=True)
            money = peewee.IntegerField(default=100)

            class Meta:
                pass

        Account._meta.database = database
        Account._meta.table_name = f"{db.table}_account"
        database.create_tables([Account])
        yield Account
        database.drop_tables([Account])

    def test_creates_reads_changes_and_deletes(self, account: Any) -> None:
        import peewee

        ann = account.create(name="ann")
        account.insert_many([{"name": "bob", "money": 5}, {"name": "cyd"}]).execute()
        assert ann.id is not None and account.get(name="ann").id == ann.id
        assert account.update(money=account.money + 1).where(account.money == 100).execute() == 2
        assert [row.money for row in account.select().order_by(account.name)] == [101, 5, 101]
        assert account.delete().where(account.name == "bob").execute() == 1
        assert account.select().count() == 2
        with pytest.raises(peewee.IntegrityError):
            account.create(name="ann")
        assert account.select().count() == 2

    def test_its_transactions_and_savepoints_hold_one_connection(self, account: Any, database: Any) -> None:
        with pytest.raises(ZeroDivisionError), database.atomic():
            account.create(name="ann")
            assert database.pool.in_transaction
            raise ZeroDivisionError
        with database.atomic():
            account.create(name="bob")
            with database.atomic() as inner:
                account.create(name="cyd")
                inner.rollback()
        assert [row.name for row in account.select()] == ["bob"]
        assert not database.pool.in_transaction

    def test_its_threads_share_the_pool(self, account: Any, database: Any, db: Db) -> None:
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                with database.pool.scope(), database.connection_context():
                    for step in range(5):
                        with database.atomic(*["immediate"] * (db.name == "sqlite")):
                            account.create(name=f"{number} {step}")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(6)]
        database.close()
        database.pool.release()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        assert not failures
        assert account.select().count() == 30
        assert database.pool.stats().opened <= 4


class TestDocs:
    def test_the_hand_written_dao_serves_many_threads(self, db: Db, policy: str) -> None:
        with db.pool(checkout=policy, max_size=3) as pool:
            pool.execute("drop table if exists account")
            pool.execute("create table account (name varchar(9) primary key, money int)")
            accounts = example("dao").Accounts(pool.proxy(), db.mark)
            accounts.open("ann", 100)
            accounts.open("bob", 0)
            pool.release()

            def work() -> None:
                with pool.scope():
                    for _ in range(10):
                        accounts.transfer("ann", "bob", 1)

            threads = [threading.Thread(target=work, daemon=True) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SOON)
            with pytest.raises(ValueError, match="does not have 51"):
                accounts.transfer("ann", "bob", 51)
            assert (accounts.balance("ann"), accounts.balance("bob"), accounts.balance("cyd")) == (50, 50, None)
            pool.execute("drop table account")
            pool.release()
            assert pool.stats().in_use == 0

    def test_the_pages_example_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        monkeypatch.chdir(tmp_path)
        code = re.findall(r"```python\n(.*?)```", (DOCS / "proxy.md").read_text(), re.DOTALL)[0]
        names: dict[str, Any] = {}
        exec(code, names)
        assert capsys.readouterr().out == "('tea',)\n"
        names["pool"].close()
