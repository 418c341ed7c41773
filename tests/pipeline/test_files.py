"""A file is whole or not there, and what was changed in it is seen."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoint import checkpoint_digest, load_checkpoint, save_checkpoint
from pipeline.console import recorded_console
from pipeline.errors import UserError, run_script
from pipeline.files import check_folder, check_outputs, read_bytes, replacing, sealed, unsealed, write_text
from pipeline.inference.record import keep_earlier
from pipeline.inference.submission import read_submission
from pipeline.inference.tta import read_views
from pipeline.networks import read_start
from pipeline.recipe import NetworkOptions
from tests.fuzz.damage import files_of_at_most
from tests.scripts import ROOT, forked


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


CONTENT = {"network": {"a": torch.arange(500.0), "b": torch.ones(7, dtype=torch.int64)}, "epoch": 3, "mse": 1.5}


def test_a_checkpoint_with_a_flipped_bit_is_damaged_or_as_it_was(tmp_path):
    """Some bits of the archive, such as those that fill it up to a multiple of 64 bytes, carry nothing."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, CONTENT)
    content = path.read_bytes()
    for offset in np.random.default_rng(0).integers(8 * len(content), size=300):
        flipped = bytearray(content)
        flipped[offset // 8] ^= 1 << offset % 8
        path.write_bytes(flipped)
        try:
            found = load_checkpoint(path)
        except UserError:
            continue
        assert all(torch.equal(found["network"][name], tensor) for name, tensor in CONTENT["network"].items()), offset
        assert (found["epoch"], found["mse"]) == (3, 1.5), offset


@pytest.mark.parametrize("content", [[1, 2], {"weights": {}}, torch.ones(3)])
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path, content):
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(UserError, match=r"best\.pt is no checkpoint"):
        load_checkpoint(tmp_path / "best.pt", "network")


def test_a_disk_that_is_full_while_a_checkpoint_is_written_is_said_and_the_old_one_stays(tmp_path, capsys):
    """Torch itself says that a position is unexpected."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, CONTENT)
    before = path.read_bytes()
    for size in (10_000, 1_000_000):
        with files_of_at_most(5000), pytest.raises(SystemExit) as stop:
            run_script(lambda size=size: save_checkpoint(path, {"network": torch.zeros(size)}))
        assert stop.value.code == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "a file grew larger than is allowed here" in said
        assert path.read_bytes() == before
    with files_of_at_most(5000):
        save_checkpoint(path, {"network": torch.zeros(10)})
    assert load_checkpoint(path).keys() >= {"network"}
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_sealed_fields_come_back_and_changed_ones_do_not(tmp_path):
    path = tmp_path / "views.json"
    fields = {"weights": [0.1, 0.2, 1e-9], "kind": "equal"}
    path.write_text(sealed(fields))
    assert unsealed(path, dict[str, object]).items() >= fields.items()
    path.write_text(path.read_text().replace("0.2", "0.3"))
    with pytest.raises(UserError, match=r"views\.json was changed"):
        unsealed(path, dict[str, object])
    path.write_text('{"weights": [1], "kind": "of an earlier version"}')
    assert unsealed(path, dict[str, object])["weights"] == [1]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("train/landmarks.csv is missing"), 2, "error: train/landmarks.csv is missing"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "the quota of disk space is used up"),
        (OSError(errno.EFBIG, "File too large", "last.pt"), 2, "ulimit -f), or write to another disk (last.pt)"),
        (OSError(errno.EIO, "Input/output error"), 2, "the disk reports an error"),
        (OSError(errno.EMFILE, "Too many open files"), 2, "Too many open files"),
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
        raise AssertionError("broken")

    with pytest.raises(AssertionError, match="broken"):
        run_script(main)


def test_a_reader_that_goes_away_ends_a_script_quietly():
    code = "from pipeline.errors import run_script\nrun_script(lambda: [print(number) for number in range(100_000)])"
    script = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    script.stdout.readline()
    script.stdout.close()
    assert script.stderr.read() == b""
    script.stderr.close()
    assert script.wait() == 141


def test_a_path_that_cannot_be_used_is_one_line_that_names_it(tmp_path, capsys):
    def main():
        (tmp_path / "nowhere/file").write_text("x")

    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == 2
    assert f"{tmp_path}/nowhere/file: No such file or directory" in capsys.readouterr().err


def test_an_output_that_could_not_be_written_is_refused_at_the_start(tmp_path):
    check_outputs({"--output": None, "--uncertainty": None})
    check_outputs({"--output": tmp_path / "new.csv"})
    with pytest.raises(UserError, match=r"--output .*nowhere is not there"):
        check_outputs({"--output": tmp_path / "nowhere/new.csv"})
    with pytest.raises(UserError, match="is a folder"):
        check_outputs({"--output": tmp_path})


def test_an_output_takes_the_place_of_no_other_file(tmp_path):
    """Neither of another output, nor of an input, nor of what is no table of this project."""
    table, weights, link = tmp_path / "o.csv", tmp_path / "best.pt", tmp_path / "link.csv"
    table.write_text("file_name,Point_M0_X,Point_M0_Y\n")
    weights.write_bytes(b"PK")
    link.symlink_to(table)
    os.mkfifo(tmp_path / "pipe")
    check_outputs({"--output": table})
    for other in (table, link, tmp_path / "." / "o.csv"):
        with pytest.raises(UserError, match=r"--uncertainty .* and --output are one file"):
            check_outputs({"--output": table, "--uncertainty": other})
    with pytest.raises(UserError, match=r"--output .* and a\.csv are one file"):
        check_outputs({"--output": table}, inputs={"a.csv": table})
    for other in (weights, tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(UserError, match="is no submission; give another name"):
            check_outputs({"--uncertainty": other})


def test_a_folder_for_results_need_not_be_there_but_its_place_must(tmp_path):
    check_folder("--runs", tmp_path / "a/b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"--runs .*file is no folder"):
        check_folder("--runs", tmp_path / "file/b")


READERS = {
    "a checkpoint": load_checkpoint,
    "its digest": checkpoint_digest,
    "views": read_views,
    "a submission": read_submission,
    "weights": lambda path: read_start(NetworkOptions(model="resnet18", weights=str(path))),
    "a file of a run": read_bytes,
}


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_is_no_file_is_named_and_neither_waited_for_nor_read_without_end(read, put, tmp_path):
    path = tmp_path / "odd"
    put(path)
    with pytest.raises(UserError, match=str(path)):
        read(path)


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_a_record_or_a_console_that_is_no_file_is_left_aside_or_named(put, tmp_path):
    (tmp_path / "o.csv").write_text("x")
    put(tmp_path / "o.csv.json")
    assert keep_earlier(tmp_path / "o.csv", {}).read_text() == "x"
    put(tmp_path / "console.txt")
    with recorded_console() as console, pytest.raises(OSError, match="it is a"):
        console.keep_in(tmp_path / "console.txt")


def test_links_that_go_round_in_a_circle_are_as_if_nothing_were_there(tmp_path):
    (tmp_path / "o.csv").symlink_to("o.csv")
    check_outputs({"--output": tmp_path / "o.csv"})
    write_text(tmp_path / "o.csv", "x")
    assert (tmp_path / "o.csv").read_text() == "x"


def test_the_file_that_could_not_be_replaced_is_named_and_not_its_partial_one(tmp_path, capsys):
    (tmp_path / "o.csv").mkdir()
    with pytest.raises(SystemExit):
        run_script(lambda: write_text(tmp_path / "o.csv", "x"))
    assert f"{tmp_path}/o.csv: Is a directory" in capsys.readouterr().err


def _write_again_and_again(path, letter):
    for _ in range(10):
        write_text(path, letter * 300_000)


@pytest.mark.slow
def test_of_several_processes_that_write_one_file_each_writes_a_whole_one(tmp_path):
    """Neither do they take the temporary file away from one another, nor is half a file ever there."""
    path, context = tmp_path / "o.csv", forked()
    writers = [context.Process(target=_write_again_and_again, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            found = path.read_text()
            assert (len(found), len(set(found))) == (300_000, 1)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["o.csv"]
