"""How are the findings told: its TLS, its keepalive, its pooler, and what they mean for a pool?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from threadpool_db.checkup import advice
from threadpool_db.checkup.advice import Limit
from threadpool_db.checkup.report import Report
from threadpool_db.checkup.sessions import Session

_MODES = {
    "transaction": "a transaction-mode pooler stands in front (one session of the server was lent to two connections, "
    "or one connection got several sessions): create_pool(..., server_pooler=True)",
    "statement": "a pooler in statement mode stands in front and refuses transactions: configure another mode",
    "session": "a pooler stands in front; each of our connections kept its session, so it is in session mode, or in "
    "transaction mode with sessions to spare: its configuration tells, and the latter needs server_pooler=True",
}


def tell_tls(report: Report, session: Session, verified: bool, server: dict[str, Any] | None, mode: str | None) -> None:
    """Our end knows of the way to the next hop, the server of the way to it: the same one, but for a pooler."""
    near = session.tls
    local, keepalive = session.socket_facts()
    if mode is None and server is not None and near["encrypted"] and server["encrypted"]:
        near |= server
    near["verified"] = near["encrypted"] and verified
    words = "no"
    if near["encrypted"]:
        words = " ".join(filter(None, (near["protocol"], near["cipher"]))) or "yes"
        words += "; the certificate was verified" if verified else "; the certificate was not verified"
    if mode is not None and server is not None:
        words += f"; between pooler and server: {server['protocol'] if server['encrypted'] else 'no'}"
    report.fact("tls", words, {**near, "local": local, "server": server})
    if not near["encrypted"] and not local:
        report.warn("tls", "nothing is encrypted, on a way that leaves this machine")
    if keepalive is not None:
        words = f"after {keepalive['idle']} s, {keepalive['count']} times every {keepalive['interval']} s"
        report.fact("keepalive", words if keepalive["on"] else "off", keepalive)
        if not keepalive["on"]:
            report.warn("keepalive", "TCP keepalive is off: a server that vanished is noticed only by a statement")


def tell_round_trips(report: Report, trips: Sequence[tuple[Any, float]]) -> str:
    """The first one pays for what the server and the client then keep."""
    first, *rest = (round(one * 1000, 3) for _, one in trips)
    median = round(statistics.median(rest), 3)
    words = f"{median:g} ms, the median of {len(rest)}; the first one {first:g} ms"
    report.fact("round_trip", words, {"first_ms": first, "median_ms": median})
    return f"first {first:g} ms, then {len(rest)} more"


def tell_mode(report: Report, mode: str | None) -> None:
    report.fact("pooler", f"in {mode} mode" if mode else "none seen", mode)
    if mode is not None:
        report.warn("pooler", _MODES[mode])


def hold_against_the_defaults(report: Report, limits: Sequence[Limit], mode: str | None) -> None:
    """Behind a pooler the server's timeouts are about the pooler's sessions, not about our connections."""
    if mode is None:
        for name in ("idle_session_timeout", "wait_timeout"):
            _warn(report, advice.idle_limit(name, report.facts["timeouts"].get(name)))
    _warn(report, advice.crowding(limits))


def tell_arithmetic(
    report: Report, limits: Sequence[Limit], mode: str | None, workers: int | None, max_size: int | None
) -> None:
    workers, max_size = workers or 1, max_size or int(advice.DEFAULTS.max_size)
    need = workers * max_size
    words = f"{workers} x {max_size} = {need} connections"
    if mode is not None:
        words += ", clients of the pooler: its limit (max_client_conn) is told only to its administrators"
    fits = all(need <= limit.most - limit.others for limit in limits) if limits else None
    report.fact("arithmetic", words, {"workers": workers, "max_size": max_size, "total": need, "fits": fits})
    _warn(report, advice.arithmetic(limits, workers, max_size))


def _warn(report: Report, warnings: Any) -> None:
    for about, message in warnings:
        report.warn(about, message)
