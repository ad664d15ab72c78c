"""Sources of real data: the Hub's parquet files, folders of images, texts; small ones made here."""

from __future__ import annotations

import io
import os
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from dendrite_zoo.hub.loopback import Hub
from dendrite_zoo.streams import HubSource, ImageFolder, SplitTasks, hashed_ngrams, load_source
from tests import processes

arrow = pytest.importorskip("pyarrow", reason="needs the [mnist] extra")
Image = pytest.importorskip("PIL.Image", reason="needs the [mnist] extra")

MIRROR = Path(os.environ.get("DENDRITE_ZOO_DATASETS", Path(__file__).parents[2].parent / "shared" / "hub" / "datasets"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache of the test's own, and no mirror."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DENDRITE_ZOO_DATASETS", raising=False)


def encoded(pixels, mode=None):
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype("uint8"), mode).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def pixels(rows, *shape, seed=0):
    return np.random.RandomState(seed).randint(256, size=(rows, *shape))


def write(path, **columns):
    import pyarrow.parquet as parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(columns), path)


def repo(folder, images, **names):
    """A data set of the Hub with the splits ``names``, of one image for each label."""
    for split, rows in {"train": slice(0, 6), "test": slice(6, 9), **names}.items():
        part = images[rows]
        write(
            folder / f"data/{split}-00000-of-00001.parquet",
            img=list(map(encoded, part)),
            kind=[0, 1, 2] * (len(part) // 3),
        )
    return folder


def test_images_by_the_names_of_columns(tmp_path):
    images = pixels(9, 5, 7)
    source = load_source(HubSource(str(repo(tmp_path / "it", images)), image="img", label="kind"))
    assert (source.x_train.numpy() == images[:6].reshape(6, -1)).all() and source.shape == (5, 7)
    assert source.y_test.tolist() == [0, 1, 2] and source.x_test.dtype == torch.uint8 and source.num_classes == 3
    x, _ = next(
        iter(
            SplitTasks(HubSource(str(tmp_path / "it"), image="img", label="kind"), 3, flatten=False).task_loader(
                1, "test"
            )
        )
    )
    np.testing.assert_allclose(x.numpy(), images[7:8, None] / 255, rtol=0, atol=1e-6)


def test_a_folder_of_images_as_torchvision_reads_it(tmp_path):
    images = pixels(12, 6, 6, 3)
    for number, image in enumerate(images):
        path = tmp_path / ("train", "train", "val")[number % 3] / f"class {number % 2}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype("uint8")).save(path)
    source = load_source(tmp_path)
    order = [number for kind in (0, 1) for number in range(12) if number % 2 == kind and number % 3 < 2]
    assert (source.x_train.numpy() == images[order].transpose(0, 3, 1, 2).reshape(8, -1)).all()
    assert source.y_train.tolist() == [0] * 4 + [1] * 4 and source.image_shape == (3, 6, 6) and len(source.x_test) == 4
    small = load_source(ImageFolder(tmp_path, size=(3, 2)))
    assert ImageFolder(tmp_path).classes == ["class 0", "class 1"]
    assert small.shape == (3, 3, 2) and abs(small.x_train.float().mean() - images[order].mean()) < 2


def test_without_a_test_split_a_fifth_is_held_out(tmp_path):
    for number in range(20):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(1, 4, 4, seed=number)[0].astype("uint8")).save(path)
    source = load_source(str(tmp_path))
    assert (len(source.x_train), source.y_test.tolist()) == (16, [0, 0, 1, 1])


def test_grey_and_coloured_images_are_all_coloured(tmp_path):
    rows = [encoded(pixels(1, 4, 4)[0]), encoded(pixels(1, 4, 4, 3)[0]), encoded(pixels(1, 4, 4)[0])]
    write(tmp_path / "train.parquet", image=rows[:2], label=[0, 1])
    write(tmp_path / "test.parquet", image=rows[2:], label=[0])
    source = load_source(HubSource(str(tmp_path)))
    assert source.shape == (3, 4, 4) and (source.x_test.view(3, 16) == source.x_test.view(3, 16)[0]).all()


@pytest.mark.parametrize("text", ["I lost my card, my only card", "Überweisung?", ""])
def test_ngrams_are_counted_where_their_hash_says(text):
    expected, words = np.zeros(50), [word.strip("?,") for word in text.lower().split()]
    grams = [*words, *(f"{a} {b}" for a, b in zip(words, words[1:], strict=False))]
    grams += [f"<{w}>"[i : i + n] for w in words for n in (3, 4, 5) for i in range(len(w) + 3 - n)]
    for gram, count in Counter(grams).items():
        code = zlib.crc32(gram.encode())
        expected[code // 2 % 50] += (1 + np.log(count)) * (1 if code % 2 else -1)
    expected /= np.linalg.norm(expected) or 1
    np.testing.assert_allclose(hashed_ngrams(["another", text], 50)[1].numpy(), expected, rtol=0, atol=1e-6)


def test_texts_with_names_for_labels(tmp_path):
    write(tmp_path / "data/train-00000-of-00001.parquet", text=["one two", "three"], intent=["b", "a"])
    write(tmp_path / "data/validation-00000-of-00001.parquet", text=["two"], intent=["b"])
    source = load_source(HubSource(str(tmp_path), text="text", label="intent", num_features=64))
    assert torch.equal(source.x_train, hashed_ngrams(["one two", "three"], 64)) and source.y_train.tolist() == [1, 0]
    assert source.y_test.tolist() == [1]


def test_what_is_wrong_is_said(tmp_path):
    folder = str(repo(tmp_path / "it", pixels(9, 5, 7)))
    (tmp_path / "empty").mkdir()
    given = {"image": "img", "label": "kind"}
    for source, said in (
        (HubSource(folder, **given, train="tran"), "a split 'tran' in .*, but found 'test', 'train'. Give train="),
        (HubSource(folder, **given, test="dev"), "a split 'dev' in .*. Give test= one of these"),
        (HubSource(folder), "a column 'image' in train-.*, but found 'img', 'kind'. Did you mean 'img'"),
        (
            HubSource(folder, image="kind", label="kind"),
            "encoded images in column 'kind' .*, but got int. Name another",
        ),
        (HubSource(folder, text="img", label="kind"), "texts in column 'img' .*, but got dict"),
        (HubSource(folder, image="img", label="img"), "whole numbers, or texts in all rows, in column 'img'"),
        (HubSource(folder, **given, config="datta"), "a configuration of .*, but got config='datta'. Did you"),
        (
            HubSource(str(tmp_path / "empty")),
            "parquet files in .*, but found none. Read it with the `datasets` library",
        ),
    ):
        with pytest.raises(ValueError, match=f"Expected {said}"):
            load_source(source)
    write(tmp_path / "two/a/train.parquet", image=[encoded(pixels(1, 4, 4)[0])], label=[0])
    write(
        tmp_path / "two/b/train.parquet",
        image=[encoded(pixels(1, 4, 5)[0]), {"bytes": b"no", "path": None}],
        label=[0, 1],
    )
    with pytest.raises(ValueError, match=r"Expected one configuration in .*two, but found 'a', 'b'. Give config='...'"):
        load_source(HubSource(str(tmp_path / "two")))
    with pytest.raises(
        ValueError, match=r"Expected an image in row 1 of split 'train' of .*, but got: cannot identify"
    ):
        load_source(HubSource(str(tmp_path / "two"), config="b"))
    (tmp_path / "it/data/test-00000-of-00001.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(
        ValueError, match=r"test-00000-of-00001.parquet to be a whole parquet file, but got: .* Download"
    ):
        load_source(HubSource(folder, image="img", label="kind"))
    with pytest.raises(ValueError, match=r"Expected `size` to be an integer from 1 to 4096, but got 0"):
        HubSource("org/name", size=0)


def test_images_of_several_sizes_are_brought_to_one(tmp_path):
    for number, side in enumerate((4, 6)):
        path = tmp_path / f"{number}" / "x.png"
        path.parent.mkdir()
        Image.fromarray(np.full((side, side), 100 + number, "uint8")).save(path)
    with pytest.raises(
        ValueError, match=r"one size, 4 x 4 as the first, but got 6 x 6 in .*x.png. Bring all to one, such as"
    ):
        ImageFolder(tmp_path).read()
    assert ImageFolder(tmp_path, size=3).read()["x_train"].tolist() == [[[100] * 3] * 3, [[101] * 3] * 3]
    with pytest.raises(FileNotFoundError, match="Expected folders with images, one for each class, but found none"):
        load_source(str(tmp_path / "0"))


def test_classes_that_lie_deeper_are_not_one_class_in_silence(tmp_path):
    """As in an archive unpacked into a folder of its own; what a Mac adds to it is no image."""
    for name in ("inner/a/0.png", "inner/b/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 9, "uint8")).save(tmp_path / name)
    for name in ("__MACOSX/a/._0.png", "inner/a/._0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match="one for each class, but found one, with folders a, b. Give .*inner"):
        ImageFolder(tmp_path).read()
    assert ImageFolder(tmp_path / "inner").read()["y_train"].tolist() == [0, 1]


SCRIPT = """
import warnings
warnings.simplefilter("error", ResourceWarning)
from dendrite_zoo.streams import HubSource, load_source
try:
    print(*(int(load_source(HubSource("org/name", image="img", label="kind")).x_train.sum()) for _ in range(2)))
    load_source("omniglot")
except ConnectionError as error:
    print(error)
"""


def run(folder, environment):
    """In a process of its own: the Hub's client reads its environment when it is imported."""
    (folder / "script.py").write_text(SCRIPT)
    done = processes.run([folder / "script.py"], cwd=folder, env=environment)
    assert done.returncode == 0 and "ResourceWarning" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def test_the_hub_is_asked_once_and_its_own_copy_in_parquet_is_taken(tmp_path):
    images = pixels(9, 5, 7)
    repo(tmp_path / "datasets" / "org" / "name", images)
    with Hub(datasets=tmp_path / "datasets") as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home"), "DENDRITE_ZOO_DATASETS": str(tmp_path)}
        said = run(tmp_path, environment)
    assert said[0] == f"{images[:6].sum()} {images[:6].sum()}"
    assert len([request for request in hub.log if request.startswith("GET /storage")]) == 2, "train and test"
    assert said[1].startswith("The Hub's data set 'local/omniglot-8-alphabets' could not be downloaded: ")
    assert said[1].endswith("in DENDRITE_ZOO_DATASETS: <folder>/local/omniglot-8-alphabets/<its files>.")
    environment["HF_HUB_OFFLINE"] = "1"
    said = run(tmp_path, environment)
    assert said[0] == f"{images[:6].sum()} {images[:6].sum()}", "without the Hub they are found in its cache"


@pytest.mark.skipif(not (MIRROR / "PolyAI").is_dir(), reason=f"no copy of the data sets under {MIRROR}")
def test_real_data_by_name(monkeypatch):
    monkeypatch.setenv("DENDRITE_ZOO_DATASETS", str(MIRROR))
    letters = SplitTasks("omniglot", num_tasks=11, flatten=False)
    x = torch.cat([x for task in range(11) for x, _ in letters.task_loader(task)])
    assert x.shape == (3630, 1, 28, 28) and abs(float(x.mean())) < 0.01 and abs(float(x.std()) - 1) < 0.01
    assert (letters.benchmark, letters.num_classes) == ("split-omniglot", 242)
