"""The database that `make up` gives its server: the one that is named, a PostgreSQL cluster of its own, or SQLite.

Nothing here prints a password: addresses are shown by `shown_address`.
"""

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from lib.errors import SwathError, UsageError

_SCHEMES = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "postgresql+psycopg": "postgresql+asyncpg",
    "postgresql+psycopg2": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}
_CONNECT_SECONDS = 10.0


def named() -> tuple[str, str] | None:
    """What names a database, Prefect's own setting first, and the address as Prefect takes it; None where nothing does.

    Raises:
        UsageError: it names a kind of database that Prefect does not take.
    """
    from prefect.settings import get_current_settings

    settings = get_current_settings().server.database
    if settings.connection_url and (settings.driver or "connection_url" in settings.model_fields_set):
        name = "Prefect's server.database setting" if settings.driver else "PREFECT_API_DATABASE_CONNECTION_URL"
        return name, prefect_address(settings.connection_url.get_secret_value(), name)
    if address := os.environ.get("DATABASE_URL", "").strip():
        return "DATABASE_URL", prefect_address(address, "DATABASE_URL")
    return None


def prefect_address(address: str, name: str) -> str:
    """An address as SQLAlchemy's asynchronous drivers take it: their scheme, `ssl` for libpq's `sslmode`.

    Raises:
        UsageError: it is none of PostgreSQL or SQLite.
    """
    try:
        parts = urlsplit(address)
        scheme = _SCHEMES[parts.scheme.lower()]
        parts.port  # noqa: B018 - raises where it is no number
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"{name} names no PostgreSQL or SQLite database",
            hint="write postgresql://USER:PASSWORD@HOST:5432/NAME, with special characters of the password percent-encoded",
        ) from error
    query = [("ssl" if key == "sslmode" else key, value) for key, value in parse_qsl(parts.query)]
    rest = urlunsplit(("", parts.netloc, parts.path, urlencode(query), ""))
    slashes = "" if parts.netloc or rest.startswith("//") else "//"
    return f"{scheme}:{slashes}{rest}"


def shown_address(address: str) -> str:
    """An address in words, without user, password or options: `PostgreSQL database prefect on db.example:5432`."""
    parts = urlsplit(address)
    if parts.scheme.startswith("sqlite"):
        return f"SQLite file {unquote(parts.path)[1:] or '(in memory)'}"
    place = dict(parse_qsl(parts.query)).get("host") or f"{parts.hostname}:{parts.port or 5432}"
    return f"PostgreSQL database {unquote(parts.path).lstrip('/') or '(default)'} on {place}"


def check(address: str, name: str) -> None:
    """Reach a database before a server is started on it, and see that this version of Prefect knows what is in it.

    Raises:
        SwathError: it cannot be reached, or another version of Prefect has made it.
    """
    try:
        revision = _revision(address)
    except _unreachable() as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise SwathError(
            f"{shown_address(address)} ({name}) cannot be reached: {_without_password(said, address)}",
            hint="start it, correct the address, or unset the variable",
        ) from error
    if revision is not None and not _is_known(address, revision):
        import prefect

        raise SwathError(
            f"{shown_address(address)} ({name}) was made by another version of Prefect: its schema {revision} is not known to "
            f"Prefect {prefect.__version__}, which this swath needs",
            hint="name a database of its own, or bring back the backup from before that version",
        )


def _unreachable() -> tuple[type[Exception], ...]:
    import asyncpg

    return (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error)


def _revision(address: str) -> str | None:
    """The revision of Prefect's schema in a database; None where there is no schema yet."""
    parts = urlsplit(address)
    if parts.scheme.startswith("sqlite"):
        path = Path(unquote(parts.path)[1:])
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            sqlite3.connect(path).close()  # or the server would say so, in a traceback
            return None
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            try:
                row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                return None
        return row[0] if row else None
    return asyncio.run(_postgres_revision(address.replace("+asyncpg", "", 1).replace("ssl=", "sslmode=")))


async def _postgres_revision(address: str) -> str | None:
    import asyncpg

    connection = await asyncpg.connect(address, timeout=_CONNECT_SECONDS)
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        found: Any = await connection.fetchval("SELECT version_num FROM alembic_version")
        return None if found is None else str(found)
    finally:
        await connection.close()


def _is_known(address: str, revision: str) -> bool:
    """Whether one of Prefect's own migration files makes this revision."""
    import prefect.server.database as package

    kind = "sqlite" if address.startswith("sqlite") else "postgresql"
    (root,) = package.__path__
    files = (Path(root) / "_migrations" / "versions" / kind).glob("*.py")
    return any(f"_{revision}_" in file.name for file in files)


def _without_password(text: str, address: str) -> str:
    password = urlsplit(address).password
    for secret in filter(None, (password, unquote(password or ""))):
        text = text.replace(secret, "…")
    return text


def sqlite_address(folder: Path) -> str:
    """The address of a SQLite file in a folder."""
    return f"sqlite+aiosqlite:///{folder / 'prefect.db'}"


def is_postgres(address: str) -> bool:
    """Whether an address is PostgreSQL's."""
    return address.startswith("postgresql")
