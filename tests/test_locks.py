"""Lock files: one holder, nothing left behind, and no lock on a file that is gone."""

import os
import threading

import pytest

from scaling import locks


def test_what_was_made_for_a_lock_goes_with_it(tmp_path):
    # fails when a refusal leaves a folder or a lock file, or takes away what was there before or came of it
    with pytest.raises(ValueError), locks.held(tmp_path / "a" / "b" / ".lock", locks.exclusively):
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "c").mkdir()
    with locks.held(tmp_path / "c" / ".lock", locks.exclusively):
        pass
    with locks.held(tmp_path / "d" / "e" / ".lock", locks.exclusively):
        (tmp_path / "d" / "e" / "done").write_text("")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["c", "d", "d/e", "d/e/done"]


def test_a_second_holder_is_refused_and_harms_nothing(tmp_path):
    # fails when two can hold one lock, or the one that was refused removes the file of the one that holds it
    path = tmp_path / ".lock"
    with locks.held(path, locks.exclusively):
        inode = path.stat().st_ino
        for _ in range(2):
            with pytest.raises(BlockingIOError), locks.held(path, locks.exclusively):
                pass
        assert path.stat().st_ino == inode
    assert not path.exists()


def test_who_waited_holds_the_file_that_is_there(tmp_path):
    # fails when the one that waited comes to hold a file that its last holder has removed, beside one that holds a new one
    path, waiting, taken = tmp_path / ".lock", threading.Event(), []

    def take(file):
        waiting.set()
        locks.fcntl.flock(file, locks.fcntl.LOCK_EX)

    def wait():
        with locks.held(path, take) as file:
            taken.append(path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()))

    with locks.held(path, locks.exclusively):
        other = threading.Thread(target=wait)
        other.start()
        assert waiting.wait(10)
    other.join(10)
    assert taken == [True] and not path.exists()
