"""The embedded digits are what they were, and a user's tensors are checked before anything is trained."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dendrite_zoo.streams import Source, load_source, sources

NAMES = ("x_train", "y_train", "x_test", "y_test")


def tensors(**changes):
    parts = {
        "x_train": torch.rand(6, 2, 2),
        "y_train": torch.tensor([0, 1, 2, 0, 1, 2]),
        "x_test": torch.rand(3, 2, 2),
        "y_test": torch.tensor([0, 1, 2]),
    }
    return tuple({**parts, **changes}.values())


class TestDigits:
    def test_the_bytes_are_pinned(self):
        source, digest = load_source("digits"), hashlib.sha256()
        for name in sorted(NAMES):
            digest.update(getattr(source, name).to(torch.uint8).numpy().tobytes())
        assert digest.hexdigest() == "00861c1622c3ec52ff4e0139662c65c8f478ebbb5d3148775aec70a6d6379d5a"

    def test_kinds_and_ranges(self):
        digits = load_source("digits")
        assert digits.x_train.dtype == torch.uint8
        assert digits.y_train.dtype == torch.int64
        assert (digits.num_features, digits.num_classes, digits.shape) == (64, 10, (8, 8))
        assert (int(digits.x_train.min()), int(digits.x_train.max())) == (0, 16)

    def test_train_and_test_are_disjoint_and_balanced(self):
        digits = load_source("digits")
        train, test = ({bytes(row.numpy()) for row in x} for x in (digits.x_train, digits.x_test))
        assert len(train) == 1438
        assert len(test) == 359
        assert not train & test
        counts = torch.stack([digits.y_train.bincount(), digits.y_test.bincount()])
        assert (5 * counts[1] - counts.sum(0)).abs().max() <= 2.5, "a fifth of each class, rounded, is for testing"
        assert counts.sum(0).max() - counts.sum(0).min() <= 10

    def test_normalised_they_have_mean_0_and_deviation_1(self):
        digits = load_source("digits")
        x = digits.normalise(digits.x_train.float())
        assert float(x.mean()) == pytest.approx(0, abs=1e-3)
        assert float(x.std()) == pytest.approx(1, abs=1e-3)
        assert digits.mean == pytest.approx(16 * sources.DIGITS_MEAN)

    def test_their_licence_travels_with_them(self):
        with safe_open(sources.DIGITS, "pt") as file:
            assert "CC BY 4.0" in file.metadata()["licence"]
            assert "archive.ics.uci.edu" in file.metadata()["source"]

    def test_they_are_scikit_learns(self):
        """Made like this; runs where scikit-learn is installed."""
        from numpy.random import MT19937, RandomState, SeedSequence

        data = pytest.importorskip("sklearn.datasets").load_digits()
        draws, parts = RandomState(MT19937(SeedSequence([0]))), {"train": [], "test": []}
        for label in range(10):
            rows = np.flatnonzero(data.target == label)
            rows = rows[draws.permutation(len(rows))]
            cut = round(len(rows) / 5)
            parts["test"].append(rows[:cut])
            parts["train"].append(rows[cut:])
        for split, rows in parts.items():
            rows = np.concatenate(rows)
            rows = rows[draws.permutation(len(rows))]
            assert (getattr(load_source("digits"), f"x_{split}").numpy() == data.data[rows]).all()
            assert (getattr(load_source("digits"), f"y_{split}").numpy() == data.target[rows]).all()


class TestTensors:
    def test_float_is_kept_and_flattened(self):
        parts = tensors()
        source = load_source(parts)
        assert source.x_train.equal(parts[0].flatten(1))
        assert source.normalise(source.x_train.clone()).equal(parts[0].flatten(1))
        assert (source.num_features, source.num_classes, source.shape) == (4, 3, (2, 2))

    def test_uint8_is_scaled_to_0_to_1(self):
        pixels = torch.tensor([[0, 255], [51, 102], [0, 0]], dtype=torch.uint8)
        source = load_source((pixels, torch.tensor([0, 1, 2]), pixels, torch.tensor([0, 1, 2])))
        assert source.x_train.dtype == torch.uint8
        assert source.normalise(source.x_train.float())[:2].tolist() == [[0.0, 1.0], pytest.approx([0.2, 0.4])]

    def test_arrays_and_double_and_small_integer_labels_do(self):
        parts = [np.asarray(part) for part in tensors()]
        parts[0], parts[2] = parts[0].astype("float64"), parts[2].astype("float64")
        parts[1] = parts[1].astype("uint8")
        source = load_source(parts)
        assert source.x_train.dtype == torch.float32
        assert source.y_train.dtype == torch.int64

    @pytest.mark.parametrize("kind", ["uint16", "uint32", "uint64"])
    def test_labels_may_be_unsigned(self, kind):
        parts = [np.asarray(part) for part in tensors()]
        unsigned = [part.astype(kind) if number % 2 else part for number, part in enumerate(parts)]
        source = load_source(unsigned)
        assert source.y_train.equal(load_source(parts).y_train) and source.num_classes == 3

    def test_a_source_passes_through(self):
        source = load_source(tensors())
        assert isinstance(source, Source)
        assert load_source(source) is source

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            (
                {"y_train": torch.arange(5)},
                ValueError,
                r"`y_train` to .* \(6,\).* but got \(5,\).*Check",
            ),
            (
                {"y_train": torch.zeros(6, 1).long()},
                ValueError,
                r"`y_train` to .* \(6,\).* but got \(6, 1\)",
            ),
            (
                {"y_train": torch.tensor([0, 1, 2, -1, 0, 1])},
                ValueError,
                "labels from 0, but got -1.*Number",
            ),
            (
                {"y_test": torch.tensor([0, 1, 7])},
                ValueError,
                "labels from 0 to 2, as `y_train`, but got 7",
            ),
            (
                {"y_train": torch.zeros(6)},
                ValueError,
                r"rows of `y_test` to be \(\) torch.float32, as those of `y_train`, but got \(\) integer labels",
            ),
            ({"y_train": torch.zeros(6, dtype=torch.bool)}, TypeError, "`y_train` to hold integers or floats, but got"),
            ({"y_train": torch.full((6, 2), torch.inf)}, ValueError, "`y_train` to hold finite numbers"),
            ({"y_train": torch.zeros(5, 2)}, ValueError, r"`y_train` to .* \(6,\).* but got \(5, 2\)"),
            (
                {"x_train": torch.zeros(6, 4).short()},
                TypeError,
                r"`x_train` .* float, .* but got torch.int16.*\.float",
            ),
            (
                {"x_train": torch.rand(6)},
                ValueError,
                r"shape \(rows, \.\.\.\), .* but got \(6,\)",
            ),
            ({"x_train": torch.rand(0, 4), "y_train": torch.zeros(0).long()}, ValueError, "not empty"),
            (
                {"x_train": torch.full((6, 2, 2), torch.nan)},
                ValueError,
                "finite numbers, but got NaN or inf",
            ),
            (
                {"x_test": torch.rand(3, 5)},
                ValueError,
                r"rows of `x_test` .* as those of `x_train`, but got \(5,\)",
            ),
            (
                {"x_test": torch.zeros(3, 2, 2, dtype=torch.uint8)},
                ValueError,
                "float32, as those .*, but got .*uint8",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused(self, changes, error, message):
        with pytest.raises(error, match=message):
            load_source(tensors(**changes))

    def test_what_is_neither(self):
        expected = r"Expected `source` to be \(x_train, .*\), \(x, y\), or a Dataset that can be indexed, but got"
        with pytest.raises(TypeError, match=f"{expected} 3 items. Pass one"):
            load_source(tensors()[:3])
        with pytest.raises(TypeError, match=f"{expected} set"):
            load_source({1})
        with pytest.raises(TypeError, match="`y` to hold numbers, but got text, such as 'labels'"):
            load_source((torch.zeros(3, 2), "labels"))

    def test_a_sparse_matrix_of_scipy_is_to_be_dense(self):
        sparse = pytest.importorskip("scipy.sparse").csr_matrix(np.eye(6))
        with pytest.raises(TypeError, match=r"`x` to hold numbers, but got csr_matrix, which is sparse. Use .toarray"):
            load_source((sparse, torch.arange(6) % 2))

    def test_float_targets_are_no_classes_and_keep_their_shape(self):
        x, y = torch.rand(10, 3), torch.rand(10, 2, 2)
        source = load_source((x, y, x[:4], y[:4]))
        assert source.num_classes is None and source.y_train.equal(y) and source.y_test.equal(y[:4])
        held_out = load_source((x, y.double()))
        assert (len(held_out.y_train), len(held_out.y_test)) == (8, 2) and held_out.y_train.dtype == torch.float32
        assert torch.cat([held_out.y_train, held_out.y_test]).sum().item() == pytest.approx(y.sum().item(), rel=1e-5)

    def test_without_test_data_a_class_of_one_row_is_learned_and_not_tested(self, caplog):
        caplog.set_level("INFO")
        source = load_source((torch.zeros(13, 2), torch.tensor([0] * 5 + [1] * 5 + [2] + [3] * 2)))
        assert source.y_test.tolist() == [0, 1, 3] and source.y_train.tolist() == [0] * 4 + [1] * 4 + [2, 3]
        assert "none of a class of one row, is held out" in caplog.text
        with pytest.raises(ValueError, match=r"got one of each class. Pass \(x_train, y_train, x_test, y_test\)"):
            load_source((torch.zeros(3, 2), torch.arange(3)))

    def test_images(self):
        y = torch.zeros(6, dtype=torch.long)
        shapes = {(6, 5, 7): (1, 5, 7), (6, 3, 8, 9): (3, 8, 9), (6, 1, 2, 2): (1, 2, 2), (6, 3, 4, 4): (3, 4, 4)}
        for shape, image in shapes.items():
            x = torch.zeros(shape)
            assert load_source((x, y, x, y)).image_shape == image
        for shape, cure in {(6, 64): "x.reshape", (6, 32, 32, 3): r"x.permute\(0, 3, 1, 2\)"}.items():
            x = torch.zeros(shape)
            with pytest.raises(ValueError, match=rf"Expected images for flatten=False, .* but got .* Pass {cure}"):
                load_source((x, y, x, y)).image_shape  # noqa: B018


def test_an_unknown_name_is_one_clear_error(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match="`source` to be 'digits', 'mnist', .* a folder .* but got 'digit'. Did you mean 'digits'",
    ):
        load_source("digit")
    with pytest.raises(
        FileNotFoundError, match="Expected folders with images, one for each class, but found none .*Check"
    ):
        load_source(tmp_path)


def test_a_folder_called_digits_does_not_hide_the_digits(tmp_path, monkeypatch):
    Path(tmp_path, "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_source("digits").num_features == 64
