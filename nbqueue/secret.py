"""The secret that this user signs with, out of the environment or a file; knows nothing of what is signed."""

from __future__ import annotations

import contextlib
import os
import secrets
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from nbqueue.errors import NbqueueError

__all__ = ["check_secret", "load_secret", "secret_file"]

_BYTES = 32
_SHORTEST = 16
_ELSE = "or name another directory in NBQUEUE_DATA_DIR, or set NBQUEUE_SECRET"


def load_secret() -> bytes:
    """The 32 bytes that this user signs with, made on first use.

    They come from ``$NBQUEUE_SECRET`` (for teams), else from the file ``secret`` in ``$NBQUEUE_DATA_DIR``,
    else from that file in the user's data directory. They are read once per process and environment.

    Returns
    -------
    bytes

    Raises
    ------
    NbqueueError
        Where the secret is too short, or its file is not this user's alone; the sentence says what to do.

    Examples
    --------
    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, NBQUEUE_SECRET="correct horse battery staple"):
    ...     len(load_secret())
    32
    """
    names = ("NBQUEUE_SECRET", "NBQUEUE_DATA_DIR", "XDG_DATA_HOME", "HOME")
    return _load(*(os.environ.get(name, "") for name in names))


def secret_file() -> Path | None:
    """Give the file that the secret is in, or will be; None where ``$NBQUEUE_SECRET`` has it."""
    return None if os.environ.get("NBQUEUE_SECRET") else _file_in(os.environ.get("NBQUEUE_DATA_DIR", ""))


def check_secret() -> None:
    """Read the secret as it is now, and make none.

    Raises
    ------
    NbqueueError
        As ``load_secret`` does.
    FileNotFoundError
        Where there is none yet.
    """
    path = secret_file()
    if path is None:
        load_secret()
    else:
        _read(path)


@lru_cache(maxsize=8)
def _load(shared: str, directory: str, *_platform: str) -> bytes:
    if shared:
        if len(shared) < _SHORTEST:
            raise NbqueueError(
                f"NBQUEUE_SECRET has {len(shared)} characters, and fewer than {_SHORTEST} can be guessed; "
                "use a long random one, such as `openssl rand -hex 32` prints, or unset it to have your own"
            )
        return sha256(os.fsencode(shared)).digest()
    path = _file_in(directory)
    try:
        return _read(path)
    except FileNotFoundError:
        _create(path)
        return _read(path)


def _file_in(directory: str) -> Path:
    return (Path(directory).expanduser() if directory else _data_directory()) / "secret"


def _data_directory() -> Path:
    from platformdirs import user_data_path

    return user_data_path("nbqueue")


def _read(path: Path) -> bytes:
    try:
        # One descriptor for the check and the reading: the file that was checked is the file that is read.
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            secret = file.read(_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NbqueueError(f"the secret {path} cannot be read ({error.strerror}); {_ELSE[3:]}") from error
    if len(secret) != _BYTES:
        raise NbqueueError(
            f"the secret {path} is damaged: it should hold {_BYTES} bytes; restore it from a backup, "
            "or delete it to get a new one (jobs signed with the old one are then refused)"
        )
    return secret


def _check_owner(path: Path, status: os.stat_result) -> None:
    if os.name != "posix":
        return
    if status.st_mode & 0o077:
        raise NbqueueError(
            f"the secret {path} is open to other users (mode {status.st_mode & 0o777:o}), who could sign "
            f"code in your name; run `chmod 600 '{path}'`, {_ELSE}"
        )
    # Whoever may write to the directory could put a secret of their own there and sign with it.
    if status.st_uid != os.geteuid():
        raise NbqueueError(f"the secret {path} belongs to another user (uid {status.st_uid}); {_ELSE[3:]}")


def _create(path: Path) -> None:
    """Put a new secret at `path`, complete from the start; one that another process put there first stays."""
    draft = path.with_name(f".secret-{os.getpid()}-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_BYTES))
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, never replaces what another process put there meanwhile.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    except OSError as error:
        raise NbqueueError(f"no secret can be made at {path} ({error.strerror}); {_ELSE[3:]}") from error
