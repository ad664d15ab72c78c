"""MNIST out of the Hub's files: a small one made here, and the real one where there is a copy of it."""

import hashlib
import io
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dendrite_zoo.callbacks import ForgettingLogger, RunRecorder
from dendrite_zoo.hub.loopback import Hub
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import PermutedTasks, cached, load_source, mnist
from tests import processes
from tests.callbacks.strangers import trainer

arrow = pytest.importorskip("pyarrow", reason="needs the [mnist] extra")
Image = pytest.importorskip("PIL.Image", reason="needs the [mnist] extra")

# A copy of the Hub's data sets, laid out as <org>/<name>/<path in the repo>.
MIRROR = Path(os.environ.get("DENDRITE_ZOO_DATASETS", Path(__file__).parents[2].parent / "shared" / "hub" / "datasets"))
has_mirror = pytest.mark.skipif(
    not (MIRROR / "ylecun" / "mnist").is_dir(),
    reason=f"no copy of ylecun/mnist under {MIRROR}; DENDRITE_ZOO_DATASETS can name another folder",
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A Hub cache of the test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def small(tmp_path):
    """A data set in MNIST's layout: ``small.folder``, the pixels it holds."""
    images = {split: np.random.RandomState(0).randint(256, size=(n, 28, 28)) for split, n in SIZES.items()}
    return write(tmp_path / "ylecun" / "mnist", images), images


SIZES = {"train": 20, "test": 10}


def write(folder, images):
    import pyarrow.parquet as parquet

    for split, pixels in images.items():
        pngs = []
        for image in pixels:
            buffer = io.BytesIO()
            Image.fromarray(image.astype("uint8")).save(buffer, "PNG")
            pngs.append({"bytes": buffer.getvalue(), "path": None})
        kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        labels = arrow.array([i % 10 for i in range(len(pixels))], arrow.int64())
        path = folder / mnist.FILES[split]
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.table({"image": arrow.array(pngs, kind), "label": labels}), path)
    return folder


def test_pixels_and_labels_come_out_as_they_went_in(small):
    folder, images = small
    source = load_source(folder)
    for split in SIZES:
        x, y = getattr(source, f"x_{split}"), getattr(source, f"y_{split}")
        assert x.dtype == torch.uint8
        assert (x.numpy() == images[split].reshape(-1, 784)).all()
        assert y.tolist() == [i % 10 for i in range(SIZES[split])]
    assert (source.num_features, source.num_classes, source.shape) == (784, 10, (28, 28))


def test_they_are_normalised_as_everybody_does(small):
    folder, images = small
    x, y = next(iter(PermutedTasks(str(folder), 1).task_loader(0, "test")))
    expected = (images["test"].reshape(-1, 784) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(x.numpy(), expected, rtol=0, atol=1e-5)


def test_other_images_in_files_of_the_same_form_are_not_called_mnist(small, tmp_path):
    """Else a record of them would merge with those of MNIST, and stand beside its published numbers."""
    folder, _ = small
    for source in (str(folder), folder):
        stream = PermutedTasks(source, 1)
        assert stream.benchmark == "permuted-custom"
        recorder = RunRecorder(folder=tmp_path)
        callbacks = [recorder, ForgettingLogger(verbose=False, folder=tmp_path / type(source).__name__, pictures=False)]
        module = ContinualClassifier(ActiveDendriteClassifier(784, [8], 10, max_tasks=1))
        trainer(tmp_path, callbacks, epochs=1).fit(module, stream)
        assert recorder.record.benchmark == "permuted-custom" and recorder.record.config_hash is None


class TestCache:
    def test_the_images_are_decoded_once(self, small, home, monkeypatch):
        source = load_source(small[0])
        assert len(list(home.rglob("*.safetensors"))) == 1
        assert len([path for path in home.rglob("*") if path.is_file()]) == 1, "nothing half-written is left"
        monkeypatch.setattr(mnist, "_decode", lambda path: pytest.fail("decoded again"))
        again = load_source(small[0])
        assert again.x_train.equal(source.x_train)
        assert again.y_test.equal(source.y_test)

    def test_other_files_are_decoded_anew(self, small, home):
        folder, images = small
        load_source(folder)
        write(folder, {split: 255 - pixels for split, pixels in images.items()})
        assert (load_source(folder).x_train.numpy() == 255 - images["train"].reshape(-1, 784)).all()

    def test_a_broken_cache_is_written_anew(self, small, home):
        source = load_source(small[0])
        (file,) = home.rglob("*.safetensors")
        file.write_bytes(file.read_bytes()[:100])
        assert load_source(small[0]).x_train.equal(source.x_train)
        assert file.stat().st_size > 100

    def test_it_may_be_unwritable(self, small, home):
        home.write_text("a file where the folder should be")
        assert load_source(small[0]).num_features == 784

    def test_a_write_that_fails_leaves_nothing(self, small, home, monkeypatch):
        def fail(arrays, path):
            Path(path).write_bytes(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(cached, "save_file", fail)
        assert load_source(small[0]).num_features == 784
        assert not [path for path in home.rglob("*") if path.is_file()]


def test_a_truncated_file_is_one_clear_error(small):
    path = small[0] / mnist.FILES["test"]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"Expected .*test-00000-of-00001.parquet to be .*, but got: .*Download"):
        load_source(small[0])


def test_without_the_extra_it_says_what_to_install(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pyarrow.*\[mnist\] extra: pip install 'dendrite-zoo\[mnist\]'"):
        load_source(small[0])


SCRIPT = """
import warnings
warnings.simplefilter("error", ResourceWarning)
from dendrite_zoo.streams import load_source
try:
    print(*(int(load_source("mnist").x_train.sum()) for _ in range(2)))
except ConnectionError as error:
    print(error)
"""


def run(hub, folder):
    """In a process of its own: the Hub's client reads its environment when it is imported."""
    (folder / "script.py").write_text(SCRIPT)
    done = processes.run([folder / "script.py"], cwd=folder, env={**os.environ, **hub.environment(folder / "home")})
    assert done.returncode == 0 and "ResourceWarning" not in done.stderr, done.stderr
    return done.stdout


def test_mnist_is_downloaded_from_the_hub_once(small, tmp_path):
    folder, images = small
    with Hub(datasets=folder.parents[1]) as hub:
        total = images["train"].sum()
        assert run(hub, tmp_path) == f"{total} {total}\n", "loaded twice"
    assert any(mnist.REVISION in request for request in hub.log), "the pinned revision is asked for"
    assert len([request for request in hub.log if request.startswith("GET /storage")]) == 2, "train and test"


def test_a_hub_without_mnist_is_one_clear_error(tmp_path):
    with Hub() as hub:
        said = run(hub, tmp_path)
    assert said.startswith("'mnist', the Hub's data set ylecun/mnist, could not be downloaded: ")
    assert "Check the connection, or give a folder that holds mnist/train-00000-of-00001.parquet as the source" in said


@has_mirror
def test_the_real_pixels():
    source = load_source(MIRROR / "ylecun" / "mnist")
    assert PermutedTasks(str(MIRROR / "ylecun" / "mnist"), 1).benchmark == "permuted-mnist" == f"permuted-{source.name}"
    images, labels = struct.pack(">IIII", 2051, 60_000, 28, 28), struct.pack(">II", 2049, 60_000)
    digests = [hashlib.md5(images + source.x_train.numpy().tobytes(), usedforsecurity=False).hexdigest()]
    digests.append(hashlib.md5(labels + source.y_train.byte().numpy().tobytes(), usedforsecurity=False).hexdigest())
    assert digests == ["6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"], "LeCun's own files"
    assert source.x_train.shape == (60_000, 784)
    assert source.x_test.shape == (10_000, 784)
    assert float(source.x_train.float().mean()) == pytest.approx(33.318, abs=1e-3)
    assert source.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    x = source.normalise(source.x_train[:20_000].float())
    assert float(x.mean()) == pytest.approx(0, abs=0.01)
    assert float(x.std()) == pytest.approx(1, abs=0.01)
