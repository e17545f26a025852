"""What the secret promises: one a user, theirs alone, whole from the start."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nbqueue import secret
from nbqueue.errors import NbqueueError
from nbqueue.secret import load_secret

posix = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A data directory of the test's own, and no secret remembered."""
    directory = tmp_path / "data"
    monkeypatch.delenv("NBQUEUE_SECRET", raising=False)
    monkeypatch.setenv("NBQUEUE_DATA_DIR", str(directory))
    secret._load.cache_clear()
    yield directory
    secret._load.cache_clear()


def test_the_first_use_makes_a_secret_that_later_uses_find(home):
    """A secret of 32 bytes is made once and kept."""
    first = load_secret()
    secret._load.cache_clear()
    assert len(first) == 32
    assert load_secret() == first == (home / "secret").read_bytes()
    assert [file.name for file in home.iterdir()] == ["secret"]


@posix
def test_nobody_else_can_read_it(home):
    """The file is made 0600, in a directory made 0700."""
    load_secret()
    assert (home / "secret").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700


@posix
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_open_to_others_is_refused(home, mode):
    """A secret that others can read or write is refused by a sentence that says chmod 600."""
    load_secret()
    secret._load.cache_clear()
    (home / "secret").chmod(mode)
    with pytest.raises(NbqueueError, match="chmod 600"):
        load_secret()


@posix
def test_a_file_of_another_user_is_refused(home, monkeypatch):
    """A secret that somebody else put there is refused."""
    load_secret()
    secret._load.cache_clear()
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(NbqueueError, match="belongs to another user"):
        load_secret()


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_file_is_refused(home, content):
    """A file of another length is refused, and left as it is."""
    load_secret()
    secret._load.cache_clear()
    (home / "secret").write_bytes(content)
    with pytest.raises(NbqueueError, match="damaged"):
        load_secret()
    assert (home / "secret").read_bytes() == content


def test_where_no_file_can_be_made_the_sentence_says_what_to_do(tmp_path, monkeypatch):
    """A directory that cannot be made is told by its name, with the two ways out."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("NBQUEUE_DATA_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(NbqueueError, match=r"below.*NBQUEUE_DATA_DIR.*NBQUEUE_SECRET"):
        load_secret()


def test_the_environment_comes_first(home, monkeypatch):
    """NBQUEUE_SECRET wins over the file, gives 32 bytes, and makes no file."""
    monkeypatch.setenv("NBQUEUE_SECRET", "correct horse battery staple")
    one = load_secret()
    monkeypatch.setenv("NBQUEUE_SECRET", "another horse battery staple")
    other = load_secret()
    assert len(one) == len(other) == 32
    assert one != other
    assert not home.exists()


def test_an_empty_variable_is_none(home, monkeypatch):
    """NBQUEUE_SECRET="" means the file."""
    monkeypatch.setenv("NBQUEUE_SECRET", "")
    assert load_secret() == (home / "secret").read_bytes()


def test_a_short_variable_is_refused_without_being_shown(monkeypatch):
    """A secret that can be guessed is refused, by a sentence that does not give it away."""
    monkeypatch.setenv("NBQUEUE_SECRET", "swordfish")
    with pytest.raises(NbqueueError, match="NBQUEUE_SECRET has 9 characters") as caught:
        load_secret()
    assert "swordfish" not in str(caught.value)


def test_it_is_read_once_an_environment(home, tmp_path, monkeypatch):
    """The file is read once, and again where the environment names another directory."""
    first = load_secret()
    (home / "secret").unlink()
    assert load_secret() == first
    monkeypatch.setenv("NBQUEUE_DATA_DIR", str(tmp_path / "other"))
    assert load_secret() != first


def test_without_a_directory_it_is_the_users_own(tmp_path, monkeypatch):
    """Unset, the directory is the user's data directory."""
    monkeypatch.delenv("NBQUEUE_DATA_DIR")
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / name)
    assert load_secret() == (tmp_path / "nbqueue" / "secret").read_bytes()


def test_the_loser_of_a_race_takes_the_winners_secret(home):
    """A secret that another process made meanwhile is not replaced, and no draft is left behind."""
    load_secret()
    before = (home / "secret").read_bytes()
    secret._create(home / "secret")
    assert (home / "secret").read_bytes() == before
    assert [file.name for file in home.iterdir()] == ["secret"]


def test_processes_that_start_at_once_end_with_one_secret(home):
    """However many processes make the first secret, all of them sign with the same."""
    code = "import sys; sys.stdin.read(1); from nbqueue.secret import load_secret; print(load_secret().hex())"
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(6)]
    for process in started:
        process.stdin.write("x")
        process.stdin.flush()
    found = {process.communicate()[0].strip() for process in started}
    assert found == {(home / "secret").read_bytes().hex()}
    assert [file.name for file in home.iterdir()] == ["secret"]
