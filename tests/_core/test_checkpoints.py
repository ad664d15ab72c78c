"""A flipped bit of a checkpoint is found wherever it would change what is loaded."""

import random
import shutil
import struct
import zipfile

import pytest
import torch

from dendrite_zoo._core.checkpoints import PREVIOUS, damage, whole_checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file like Lightning's: tensors of several kinds, an optimizer's state, and plain values."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoints") / "last.ckpt"
    state = {f"layer{n}.weight": torch.randn(3, 5) for n in range(4)} | {"count": torch.arange(4)}
    torch.save({"state_dict": state, "epoch": 3, "loops": {"lr": [0.1, None]}, "half": torch.randn(7).half()}, path)
    return path


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    return one == other


def flips(content, directory):
    """A bit of each byte of the directory, and as many anywhere."""
    rng = random.Random(0)
    yield from (byte * 8 + rng.randrange(8) for byte in range(directory, len(content)))
    yield from (rng.randrange(len(content) * 8) for _ in range(700))


def test_no_flipped_bit_changes_what_is_loaded(saved, tmp_path):
    whole, content, altered = torch.load(saved, weights_only=True), saved.read_bytes(), tmp_path / "altered.ckpt"
    with zipfile.ZipFile(saved) as file:
        directory = file.start_dir
    found = harmless = 0
    for bit in flips(content, directory):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        altered.write_bytes(flipped)
        if damage(altered) is None:
            assert equal(whole, torch.load(altered, weights_only=True)), (
                f"bit {bit}, {bit // 8 - directory} of the directory"
            )
            harmless += 1
        else:
            found += 1
    assert found > 700 and harmless > 10  # of padding, dates and the like
    assert damage(saved) is None


def test_members_with_an_exchanged_name_or_the_mark_of_a_folder_are_found(saved, tmp_path):
    """Torch reads zeros from what is marked as a folder, and reads another tensor under an exchanged name."""
    content = saved.read_bytes()
    with zipfile.ZipFile(saved) as file:
        place = file.start_dir
        for member in file.infolist():
            for offset, mask in ((38, 0x10), (46 + len(member.filename) - 1, 0x01)):
                altered = bytearray(content)
                altered[place + offset] ^= mask
                (tmp_path / "altered.ckpt").write_bytes(altered)
                assert damage(tmp_path / "altered.ckpt") is not None, member.filename
            extra, comment = struct.unpack("<HH", content[place + 30 : place + 34])
            place += 46 + len(member.filename) + extra + comment


@pytest.mark.parametrize("content", [b"", b"# a text\n", b"PK\x03\x04", None], ids=["empty", "text", "begun", "cut"])
def test_what_is_no_checkpoint_is_refused(content, saved, tmp_path):
    (tmp_path / "last.ckpt").write_bytes(saved.read_bytes()[:-100] if content is None else content)
    with pytest.raises(
        ValueError, match=r"last.ckpt is damaged, or no checkpoint \(File is not a zip file\). Start again"
    ):
        whole_checkpoint(tmp_path / "last.ckpt")


def test_what_holds_more_than_tensors_is_whole(tmp_path):
    torch.save({"path": tmp_path}, tmp_path / "own.ckpt")
    assert damage(tmp_path / "own.ckpt") is None


def test_the_one_before_is_read_instead_and_said(saved, tmp_path):
    last, previous = tmp_path / "last.ckpt", tmp_path / PREVIOUS
    with pytest.raises(FileNotFoundError, match="there is no file"):
        whole_checkpoint(last)
    shutil.copy(saved, previous)
    with pytest.warns(UserWarning, match=r"last.ckpt is damaged \(there is no such file\), so .*previous.ckpt"):
        assert whole_checkpoint(last) == previous
    last.write_bytes(saved.read_bytes().replace(b"layer3", b"layer4", 1))
    with pytest.warns(
        UserWarning, match="Bad CRC-32 for file .*, so .*previous.ckpt, the one before it, is read instead"
    ):
        assert whole_checkpoint(last) == previous
    previous.write_bytes(b"")
    shutil.copy(saved, tmp_path / "best.ckpt")
    with pytest.raises(ValueError, match=f"Read another one: {tmp_path / 'best.ckpt'}"):
        whole_checkpoint(last)
