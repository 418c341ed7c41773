"""What the console said stands in the run's folder too."""

import pytest

from pipeline.console import recorded_console
from pipeline.errors import UserError


def test_all_that_was_printed_is_kept_and_printed(tmp_path, capsys):
    with recorded_console() as console:
        print("before there is a folder")
        console.keep_in(tmp_path / "console.txt")
        print("within")
        console.keep_in(tmp_path / "other.txt")
        print("of the next fold")
    assert (tmp_path / "console.txt").read_text() == "before there is a folder\nwithin\n"
    assert (tmp_path / "other.txt").read_text() == "of the next fold\n"
    assert capsys.readouterr().out == "before there is a folder\nwithin\nof the next fold\n"


@pytest.mark.parametrize(
    ("error", "kept"), [(UserError("the loss is nan"), "error: the loss is nan\n"), (KeyError("x"), "KeyError: 'x'\n")]
)
def test_what_ended_the_work_is_kept(tmp_path, error, kept):
    def work():
        with recorded_console() as console:
            console.keep_in(tmp_path / "console.txt")
            raise error

    with pytest.raises(type(error)):
        work()
    assert (tmp_path / "console.txt").read_text().endswith(kept)
