"""Lock files: one holder, nothing left behind, and no lock on a file that is gone."""

import fcntl
import os
import threading

import pytest
from training import wait_for

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
    path, tries, held = tmp_path / ".lock", [], threading.Event()

    def take(file):
        tries.append(os.fstat(file.fileno()).st_ino)
        fcntl.flock(file, fcntl.LOCK_EX)

    def wait():
        with locks.held(path, take) as file:
            assert os.path.samestat(os.fstat(file.fileno()), path.stat())
            held.set()

    with open(path, "w") as first, open(tmp_path / "next", "w") as second:
        for file in (first, second):
            fcntl.flock(file, fcntl.LOCK_EX)
        other = threading.Thread(target=wait)
        other.start()
        wait_for(lambda: tries, "a first try", 10)
        os.replace(tmp_path / "next", path)  # the first holder removes its file, and a second one makes another
        first.close()
        wait_for(lambda: len(tries) == 2, "a second try", 10)
        assert tries[1] == path.stat().st_ino and not held.is_set()
    other.join(10)
    assert held.is_set() and not path.exists()
