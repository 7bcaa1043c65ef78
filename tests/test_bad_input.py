"""Bad input through the real commands: exit status, message, no traceback, no file changed; and the page that lists it."""

import pathlib
import shutil

import bad_input
import jax  # noqa: F401 the devices that the tests share are started before the first test
import pytest

from scaling import runs

CASES = {f"{group}: {case.name}": case for group, cases in bad_input.CASES.items() for case in cases}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder that every case spoils a copy of."""
    return bad_input.make_world(tmp_path_factory.mktemp("world").resolve())


@pytest.fixture(scope="module")
def answers(world: pathlib.Path, tmp_path_factory: pytest.TempPathFactory):
    """The answer to a case and its message for the page, each made once."""
    made: dict[str, tuple[bad_input.Answer, str]] = {}

    def answer(name: str) -> tuple[bad_input.Answer, str]:
        if name not in made:
            folder = tmp_path_factory.mktemp("case").resolve() / "here"
            shutil.copytree(world, folder)
            done = bad_input.answer(CASES[name], folder)
            made[name] = done, bad_input.message(CASES[name], done, folder)
            shutil.rmtree(folder)
        return made[name]

    return answer


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_told_and_changes_nothing(answers, name):
    # fails when a mistake ends in another status, in a traceback, in a message without place, field, value or remedy, or
    # leaves, changes or removes a file
    case, (answer, _) = CASES[name], answers(name)
    assert answer.status == runs.BAD_CONFIG, answer
    assert answer.stderr.startswith("error: ") and len(answer.stderr) < 2000, answer.stderr
    assert [part for part in case.told if part not in answer.stderr] == [], answer.stderr
    assert "Traceback" not in answer.stderr + answer.printed
    assert answer.changed == ()


def test_the_cases_are_many_and_of_every_kind():
    # fails when cases are lost, or one asks for nothing
    assert len(CASES) >= 40 and all(len(cases) >= 10 for cases in bad_input.CASES.values())
    assert all(all(part.strip() for part in case.told) for case in CASES.values())
    assert [
        (name, part)
        for name, case in CASES.items()
        for i, part in enumerate(case.told)
        if any(part in other for other in case.told[:i] + case.told[i + 1 :])
    ] == []  # it could not fail by itself
    assert sum(case.process for case in CASES.values()) >= 5  # as a user starts them


def test_the_page_is_up_to_date(answers):
    # fails when docs/errors.md tells other messages than the commands; python -m tests.bad_input --write docs/errors.md
    said = {CASES[name]: answers(name)[1] for name in CASES}
    assert (bad_input.REPO / "docs" / "errors.md").read_text() == bad_input.page(said)
