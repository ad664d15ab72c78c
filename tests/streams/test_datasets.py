"""Data sets of others: what comes out is what their items hold, one by one."""

from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from dendrite_zoo.streams import PermutedTasks, load_source
from dendrite_zoo.streams.datasets import read_array, read_dataset


class Items(Dataset):
    """Items made by a function of their number."""

    def __init__(self, item, length=10):
        self.item, self.length = item, length

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        if not 0 <= i < self.length:
            raise IndexError
        return self.item(i)


def pixels(i, shape=(4, 6)):
    return (np.arange(np.prod(shape)).reshape(shape) * (i + 1) % 256).astype("uint8")


@pytest.mark.parametrize(
    "item",
    [
        lambda i: (torch.from_numpy(pixels(i)), i % 2),
        lambda i: [pixels(i), torch.tensor(i % 2)],
        lambda i: (Image.fromarray(pixels(i)), np.int64(i % 2)),
        lambda i: {"image": Image.fromarray(pixels(i)), "label": i % 2},
        lambda i: {"target": i % 2, "data": pixels(i)},
    ],
)
def test_items_of_every_kind(item):
    x, y = read_dataset(Items(item))
    assert x.numpy().tolist() == [pixels(i).tolist() for i in range(10)] and x.dtype == torch.uint8
    assert y.tolist() == [i % 2 for i in range(10)]


def test_colour_images_have_their_channels_first():
    x, _ = read_dataset(Items(lambda i: (Image.fromarray(pixels(i, (4, 6, 3))), 0)))
    assert x.shape == (10, 3, 4, 6)
    assert x[3].permute(1, 2, 0).numpy().tolist() == pixels(3, (4, 6, 3)).tolist()


def test_a_dictionary_of_splits_as_the_hub_has_them():
    train, test = Items(lambda i: (torch.full((3,), float(i)), i % 2)), Items(lambda i: (torch.ones(3) * 9, 0), 4)
    for name in ("test", "validation"):
        source = load_source({"train": train, name: test})
        assert source.x_train[:, 0].tolist() == [*range(10)] and source.y_test.tolist() == [0] * 4
    stream = PermutedTasks(train, 2)  # every stream takes it
    assert sum(len(y) for _, y in stream.task_loader(1)) == 8, "a fifth is held out"
    with pytest.raises(ValueError, match="Expected a split 'train' in the data set, but got 'test'"):
        load_source({"test": test})


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (Items(lambda i: torch.zeros(3)), TypeError, r"pairs \(x, y\), but got items of Tensor"),
        (Items(lambda i: (0, 1, 2)), TypeError, r"pairs \(x, y\), but got items of 3 parts"),
        (Items(lambda i: {"a": 1, "b": 2, "label": 0}), TypeError, "but got 'a', 'b', 'label'. Keep two"),
        (Items(lambda i: {"a": 1, "b": 2}), TypeError, "one of labels .* but got 'a', 'b'"),
        (
            Items(lambda i: (torch.zeros(i + 1), 0)),
            ValueError,
            r"one shape in Items, \(1,\), but got \(2,\) in item 1",
        ),
        (Items(lambda i: (torch.zeros(1), 0), 0), ValueError, "Expected items in Items, but got none"),
        (
            Items(lambda i: (torch.zeros(1), "ab"[i % 2])),
            TypeError,
            "labels of Items .* numbers, but got 'a'. Number the",
        ),
        (Items(lambda i: {"text": "hello", "label": 0}), TypeError, "inputs of Items .*, but got 'hello'. .*HubSource"),
        (DataLoader(Items(lambda i: (torch.zeros(1), 0))), TypeError, "but got DataLoader. Pass its `dataset`"),
    ],
)
def test_what_cannot_be_read(dataset, error, message):
    with pytest.raises(error, match=message):
        load_source(dataset)


def test_features_of_a_network_with_a_gradient_are_data():
    x, y = torch.nn.Linear(3, 2)(torch.rand(10, 3)), torch.arange(10) % 2
    for given in ((x, y), TensorDataset(x, y)):
        assert not load_source(given).x_train.requires_grad


def test_what_is_not_dense_or_no_float_says_what_to_do():
    x, y = torch.eye(10), torch.arange(10) % 2
    with pytest.raises(TypeError, match="`x_train` to be dense, but got torch.sparse_coo. Use .to_dense()"):
        load_source((x.to_sparse(), y))
    for wrong in (x.short(), x.long()[:, None]):
        with pytest.raises(TypeError, match=r"numbers of tokens \(rows, length\) of int64, but got .* Use .float\(\)"):
            load_source((wrong, y))


def test_a_data_set_without_an_index_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.full((2,), float(i)), i % 2) for i in range(30)])

    with pytest.raises(TypeError, match=r"can be indexed, but got Stream. Pass as many rows .* list\(itertools.islice"):
        load_source(Stream())
    rows = list(islice(Stream(), 20))
    source = load_source(rows)
    assert (len(source.x_train), len(source.x_test)) == (16, 4)


def test_floats_that_look_like_pixels_are_a_warning_and_others_are_not(recwarn):
    y = torch.arange(20) % 2
    pixels = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    pixels[0, 0, 0, 0] = 255
    for x in (pixels.float(), pixels.flatten(1).float(), pixels.float() * 0.9):
        with pytest.warns(UserWarning, match="floats from .* If they are pixels, divide them by 255"):
            load_source((x, y))
    for x in (pixels, pixels / 255, pixels.float() - 100, pixels.flatten(1) * 0.9, 1000 * torch.rand(20, 3, 4)):
        load_source((x, y))
    assert not recwarn.list


def test_test_rows_of_another_scale_are_a_warning(recwarn):
    x, y = torch.rand(80, 6), torch.arange(80) % 2
    load_source((x, y, 2 * x, y))
    load_source((x, y, x[:10] * 255, y[:10]))
    assert not recwarn.list, "of little, or of a few rows, nothing is said"
    for test in (x * 255, x + 3, x / 255):
        with pytest.warns(UserWarning, match="Prepare both alike"):
            load_source((x, y, test, y))


class TestATable:
    """Columns of several types, as a CSV has them."""

    def test_text_is_refused_with_what_to_do(self):
        y = np.array(["sick", "well", "well"])
        with pytest.raises(TypeError, match=r"`y` to hold numbers, but got text, such as 'sick'.*numpy.unique\(y"):
            load_source((np.zeros((3, 2), "float32"), y))
        x = np.array([[1.0, "yes"], [2.0, "no"], [3.0, "no"]], dtype=object)
        with pytest.raises(TypeError, match="`x` to hold numbers, but got text, such as 'yes'.*pandas.get_dummies"):
            load_source((x, np.arange(3)))
        columns = {"pixel_values": np.zeros((3, 2)), "labels": np.arange(3)}
        with pytest.raises(TypeError, match="a dictionary of 'pixel_values', 'labels'. Pass its columns, as"):
            load_source((columns, columns))
        with pytest.raises(TypeError, match="`x_test` to hold numbers, but got text, such as 'a'"):
            load_source((x[:, :1].astype(float), np.arange(3), [["a"]] * 3, np.arange(3)))

    def test_numbers_of_several_types_are_read(self):
        x = np.array([[1, True], [2.5, False]] * 5, dtype=object)
        source = load_source((x, [0, 1] * 5))
        assert sorted(source.x_train[:, 0].unique().tolist()) == [1.0, 2.5] and source.x_train.dtype == torch.float32

    def test_arrays_of_the_other_byte_order_and_backwards(self):
        x, y = np.arange(6.0).reshape(3, 2), np.arange(3)
        for given in (x.astype(">f8"), x[::-1].copy()[::-1], np.asfortranarray(x).astype(">f4")):
            assert read_array(given, "x").tolist() == x.tolist()
        assert read_array(y[::-1], "y").tolist() == [2, 1, 0] and read_array(y.astype(">i8"), "y").dtype == torch.int64

    def test_an_array_that_is_only_to_read(self):
        x = np.ones((10, 2), "float32")
        x.flags.writeable = False
        assert load_source((x, [0, 1] * 5)).x_train.shape == (8, 2)  # warnings are errors

    def test_missing_values_are_counted_and_their_columns_named(self):
        x = np.ones((10, 4), "float32")
        x[2, 1] = x[2, 3] = x[7, 3] = np.nan
        with pytest.raises(ValueError, match="NaN or infinity in 2 of 10 rows, in columns 1, 3. Leave these rows out"):
            load_source((x, np.arange(10) % 2))

    def test_a_data_frame_is_a_table_of_numbers(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"age": [30.0, 40.0] * 5, "smoker": [True, False] * 5, "kind": ["b", "a"] * 5})
        source = load_source((frame[["age", "smoker"]], frame["kind"].astype("category").cat.codes))
        assert {tuple(row) for row in source.x_train.tolist()} == {(30.0, 1.0), (40.0, 0.0)}
        assert set(source.y_train.tolist()) == {0, 1}
        with pytest.raises(TypeError, match="`y` to hold numbers, but got text, such as 'b'"):
            load_source((frame[["age"]], frame["kind"]))


def test_a_file_of_arrays_in_the_layout_of_keras(tmp_path):
    rows = {"x_train": (60, 8, 8), "x_test": (20, 8, 8)}
    arrays = {name: np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8) for name, size in rows.items()}
    arrays |= {"y_train": np.arange(60) % 3, "y_test": np.arange(20) % 3}
    np.savez(tmp_path / "mnist.npz", **arrays)
    source = load_source(np.load(tmp_path / "mnist.npz"))
    assert torch.equal(source.x_test, torch.as_tensor(arrays["x_test"]).flatten(1))
    assert source.y_train.tolist() == arrays["y_train"].tolist()


@pytest.mark.parametrize(
    ("y", "remedy"),
    [
        (torch.zeros(6, 1, dtype=torch.long), r"\(6, 1\). Pass y.reshape\(-1\)."),
        (torch.eye(6, dtype=torch.long), r"\(6, 6\). Pass y.argmax\(1\) where one class of each row is marked"),
        (torch.ones(6, 3, dtype=torch.long), r"\(6, 3\). Several labels a row, 0 or 1, are floats, y.float\(\)."),
        (torch.zeros(6, 4, 4, dtype=torch.long), r"as in segmentation, is for no stream: give loaders of \(x, y\)"),
        (torch.zeros(5, dtype=torch.long), r"\(5,\). Check that both are of the same rows."),
    ],
)
def test_what_to_do_about_labels_of_another_shape(y, remedy):
    with pytest.raises(
        ValueError, match=rf"Expected `y_train` to be of the shape \(6,\), a label .* but got .*{remedy}"
    ):
        load_source((torch.rand(6, 2), y, torch.rand(6, 2), y))
