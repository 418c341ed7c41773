"""A file is whole or not there."""

import errno

import pytest
import torch

from pipeline.checkpoint import load_checkpoint, save_checkpoint
from pipeline.errors import UserError, run_script
from pipeline.files import check_folder, check_output, replacing, write_text


def test_a_file_that_could_not_be_finished_leaves_the_old_one(tmp_path):
    write_text(tmp_path / "x", "old")

    def fail():
        with replacing(tmp_path / "x") as file:
            file.write(b"half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    content = {"weights": {"a": torch.randn(3)}, "step": 7, "names": ["x"], "best": float("inf")}
    save_checkpoint(tmp_path / "last.pt", content)
    found = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(found["weights"].pop("a"), content["weights"].pop("a"))
    assert found == content


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a checkpoint", None])
def test_a_damaged_or_missing_checkpoint_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"last\.pt"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("train/landmarks.csv is missing"), 2, "error: train/landmarks.csv is missing"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "the disk is full"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_a_user_can_mend_is_said_without_a_traceback(capsys, error, status, said):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == status
    assert said in capsys.readouterr().err


def test_what_is_our_fault_keeps_its_traceback():
    def main():
        raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="broken"):
        run_script(main)


def test_a_path_that_cannot_be_used_is_one_line_that_names_it(tmp_path, capsys):
    def main():
        (tmp_path / "nowhere/file").write_text("x")

    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == 2
    assert f"{tmp_path}/nowhere/file: No such file or directory" in capsys.readouterr().err


def test_an_output_that_could_not_be_written_is_refused_at_the_start(tmp_path):
    check_output("--output", None)
    check_output("--output", tmp_path / "new.csv")
    with pytest.raises(UserError, match=r"--output .*nowhere is not there"):
        check_output("--output", tmp_path / "nowhere/new.csv")
    with pytest.raises(UserError, match="is a folder"):
        check_output("--output", tmp_path)


def test_a_folder_for_results_need_not_be_there_but_its_place_must(tmp_path):
    check_folder("--runs", tmp_path / "a/b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"--runs .*file is no folder"):
        check_folder("--runs", tmp_path / "file/b")
