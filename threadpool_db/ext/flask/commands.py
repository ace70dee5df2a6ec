"""What can be asked of an app's pools from a shell? ``flask threadpool-db check``, ``flask threadpool-db options``.

Neither makes a pool of what stands in ``app.config``: the first connects by itself, step by step.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import AppGroup

from threadpool_db.checkup.report import Report, Secrets
from threadpool_db.checkup.steps import check
from threadpool_db.config import PoolConfig

if TYPE_CHECKING:
    from threadpool_db.ext.flask.extension import AppPools

commands = AppGroup("threadpool-db", help="The database pools of this app.")


@commands.command("check")
@click.argument("prefix", required=False)
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=5.0, help="Seconds for each step (5).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, at the end.")
@click.option("--workers", type=click.IntRange(1), help="Processes that will run this app: do their pools fit?")
@click.pass_context
def check_pool(context: click.Context, prefix: str | None, timeout: float, as_json: bool, workers: int | None) -> None:
    """Connect to the app's database step by step, as `threadpool-db check URL` does.

    PREFIX tells which, where an app has several: ARCHIVE_DB for the one of ARCHIVE_DB_URL.
    """
    pools = _pools()
    if prefix is None and len(pools) == 1:
        (prefix,) = pools
    if prefix not in pools:
        raise click.UsageError(f"name one of the app's pools: {', '.join(pools)}")
    found = pools[prefix].settings
    if found is None:
        raise click.UsageError(f"{prefix}: this pool was made in code, its URL is not known here")
    report = Report(found.url, sys.stdout, sys.stderr, as_json=as_json)
    size = found.config.max_size
    context.exit(check(report, found.url, None, timeout, workers, int(size) if size < math.inf else None))


@commands.command("options")
def show_options() -> None:
    """What the app's pools are configured with, and where it was set. No secrets."""
    for prefix, one in _pools().items():
        found = one.settings
        config = one.pool._config if found is None else found.config
        rows = [] if found is None else [(f"{prefix}_URL", Secrets(found.url).hide(found.url), "")]
        for field in dataclasses.fields(PoolConfig):
            source = "" if found is None else found.sources.get(field.name, "")
            rows.append((f"{prefix}_{field.name.upper()}", _shown(field, getattr(config, field.name)), source))
        wide = [max(len(row[n]) for row in rows) for n in (0, 1)]
        click.echo(f"{prefix}: " + ("made in code" if found is None else "made of app.config and FlaskPool(...)"))
        for key, value, source in rows:
            click.echo(f"  {key:<{wide[0]}}  {value:<{wide[1]}}  {source}".rstrip())


def _shown(field: dataclasses.Field[Any], value: Any) -> str:
    if not field.repr and value:
        return "..."  # there may be a secret in it
    return repr(value)


def _pools() -> AppPools:
    pools: AppPools = current_app.extensions["threadpool_db"]
    return pools
