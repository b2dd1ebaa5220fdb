"""Asking a Prefect server: is it there, is it healthy, is it of the version that swath is made for; and who has its port."""

import contextlib
import os
import socket

import httpx
import psutil

from lib.errors import SwathError, UsageError
from lib.running import running

_ASK_SECONDS = 5.0


def server_address() -> str:
    """The API that a command here speaks to: PREFECT_API_URL or Prefect's profile, else what `make up` runs.

    Raises:
        UsageError: there is none.
    """
    from prefect.settings import get_current_settings

    if api := get_current_settings().api.url:
        return api.rstrip("/")
    if up := running():
        return up.api
    raise UsageError("no server is named and none is up", hint="set PREFECT_API_URL, or run `make up`")


def is_healthy(api: str) -> bool:
    """Whether a server answers and its database does."""
    try:
        return httpx.get(f"{api}/health", timeout=_ASK_SECONDS).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def version_of(api: str) -> str | None:
    """The version of the Prefect server at an address; None where none answers.

    Raises:
        SwathError: it asks for a password that we do not have.
    """
    auth = os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    user, _, password = (auth or "").partition(":")
    try:
        answer = httpx.get(f"{api}/admin/version", timeout=_ASK_SECONDS, auth=(user, password) if auth else None)
    except httpx.HTTPError:
        return None
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise SwathError(
            f"the Prefect server at {api} asks for a password",
            hint="set PREFECT_API_AUTH_STRING=USER:PASSWORD, the same as the server's PREFECT_SERVER_API_AUTH_STRING",
        )
    with contextlib.suppress(ValueError):
        version = answer.json()
        if answer.is_success and isinstance(version, str):
            return version
    return None


def check_server(api: str) -> None:
    """See that a server answers and is of the version that this swath is tested with: the same major and minor number.

    Raises:
        SwathError: none answers, or it is of another version.
    """
    import prefect

    version = version_of(api)
    if version is None:
        raise SwathError(
            f"no Prefect server answers at {api}",
            hint="start it (`make up` starts one here), or correct PREFECT_API_URL",
        )
    if version.split(".")[:2] != prefect.__version__.split(".")[:2]:
        needed = ".".join(prefect.__version__.split(".")[:2])
        raise SwathError(
            f"the server at {api} is Prefect {version}; this swath has {prefect.__version__} and needs a server {needed}.x",
            hint=f"upgrade one of both: install prefect=={prefect.__version__} for the server, or the swath that fits it",
        )


def check_port(port: int) -> None:
    """See that a port of the loopback interface is free.

    Raises:
        SwathError: it is taken; by whom, where that can be known.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            problem = f"port {port} cannot be used: {error.strerror}"
            if holder := _holder(port):
                problem = f"port {port} is taken by {holder}"
            raise SwathError(problem, hint=f"end that, or choose another: make up PORT={_free_port()}") from error


def _holder(port: int) -> str:
    """Who listens on a port: process, and the version where it is a Prefect server."""
    words = []
    with contextlib.suppress(psutil.Error):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
                words.append(f"`{' '.join(psutil.Process(each.pid).cmdline())[:120]}` (process {each.pid})")
                break
    with contextlib.suppress(SwathError):
        if version := version_of(f"http://127.0.0.1:{port}/api"):
            words.append(f"a Prefect server {version}")
    return ", ".join(words)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
