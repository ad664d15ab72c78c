"""Data sets of the Hub as sources of tasks: images or texts and labels, out of parquet files."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dendrite_zoo._core.checks import check_integers
from dendrite_zoo._core.names import nearest
from dendrite_zoo.streams.cached import Arrays, cached, extra
from dendrite_zoo.streams.images import check_size, decode, same_channels
from dendrite_zoo.streams.ngrams import hashed_ngrams

__all__ = ["HubSource"]

MIRROR = "DENDRITE_ZOO_DATASETS"
"""Names a folder ``<org>/<name>/<path in the repo>`` whose data sets are not asked of the Hub."""
TESTS = ("test", "validation", "valid", "val")
CONVERTED = "refs/convert/parquet"
SHARD = re.compile(r"(?P<split>.+?)(-\d{5}-of-\d{5}(-[0-9a-f]+)?)?\.parquet")


def mirrored(repo: str) -> Path | None:
    """The folder of a repo in the mirror that ``DENDRITE_ZOO_DATASETS`` names; None where there is none."""
    mirror = None if "HF_ENDPOINT" in os.environ else os.environ.get(MIRROR)
    folder = Path(mirror or "", repo)
    return folder if mirror and folder.is_dir() else None


@dataclass(frozen=True)
class HubSource:
    """A data set of the Hub, by its repo and the names of its columns, as a source of tasks.

    Its parquet files are downloaded once, and decoded once. Where a repo holds other files, most have a copy in parquet
    that the Hub made, which is taken then. Without a network, the variable ``DENDRITE_ZOO_DATASETS`` may name a folder
    ``<org>/<name>/<path in the repo>`` to read from (unless ``HF_ENDPOINT`` names another Hub).

    Args:
        repo: ``org/name``; or a folder with the files of such a repo.
        image: column of encoded images.
        text: column of texts in place of images; rows are their `hashed_ngrams`.
        label: column of the labels, integers or texts (numbered in the order of the alphabet).
        train: the split to train on.
        test: the split to test on; None for ``"test"`` or ``"validation"``, or where there is neither a fifth of the
            rows of ``train``.
        config: of the data set, where there are several: the folder of its files.
        size: height and width that images are brought to, an int for both; None where they are of one size.
        num_features: size of a row of text.
        revision: branch, tag or commit; None for ``main``, or the Hub's own copy in parquet.

    Example:
        >>> HubSource("zalando-datasets/fashion_mnist")
        HubSource(repo='zalando-datasets/fashion_mnist', image='image', text=None, label='label', ...)
    """

    repo: str
    image: str = "image"
    text: str | None = None
    label: str = "label"
    train: str = "train"
    test: str | None = None
    config: str | None = None
    size: int | tuple[int, int] | None = None
    num_features: int = 2048
    revision: str | None = None

    def __post_init__(self) -> None:
        check_size(self.size)
        check_integers(1, num_features=self.num_features)

    def read(self) -> Arrays:
        """Rows and labels of each split: ``x_train (N, ...)``, ``y_train (N,)``, and those of a test split.

        Raises:
            ConnectionError: the files could not be downloaded.
            ImportError: without pyarrow, or pillow for images.
            ValueError: there is no such split or column, or a file is not what it should be.
        """
        files = self.files()
        options = repr((self.image, self.text, self.label, self.size, self.num_features, list(files)))
        return cached([path for paths in files.values() for path in paths], options, partial(self._arrays, files))

    def _arrays(self, files: dict[str, list[Path]]) -> Arrays:
        tables = {split: _table(paths, [self.text or self.image, self.label]) for split, paths in files.items()}
        names = _classes(tables["train"][1])
        arrays: Arrays = {}
        for split, (inputs, labels) in tables.items():
            arrays[f"x_{split}"] = self._inputs(inputs, split)
            arrays[f"y_{split}"] = _numbers(labels, names, self.label)
        if self.text is None and "test" in tables:
            arrays["x_train"], arrays["x_test"] = same_channels(arrays["x_train"], arrays["x_test"])
        return arrays

    def _inputs(self, column: list[Any], split: str) -> Tensor:
        where = f"of split {split!r} of {self.repo}"
        if self.text is not None:
            if wrong := [type(value).__name__ for value in column if not isinstance(value, str)]:
                raise ValueError(f"Expected texts in column {self.text!r} {where}, but got {wrong[0]}. Name another.")
            return hashed_ngrams(column, self.num_features)
        images: list[Any] = [value.get("bytes") if isinstance(value, dict) else value for value in column]
        if wrong := [type(value).__name__ for value in images if not isinstance(value, bytes)]:
            remedy = "Name another, or for texts give text=."
            raise ValueError(f"Expected encoded images in column {self.image!r} {where}, but got {wrong[0]}. {remedy}")
        return decode(((f"row {row} {where}", image) for row, image in enumerate(images)), self.size)

    # Where the files are.

    def files(self) -> dict[str, list[Path]]:
        """The parquet files of the splits ``"train"`` and, where there is one, ``"test"``; downloaded where needed."""
        folder = self._folder()
        for revision in ["main", CONVERTED] if self.revision is None and folder is None else [self.revision or "main"]:
            if folder is None:
                names = self._listed(revision)
            else:
                names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.parquet"))]
            if names:
                break
        place = (lambda name: self._ask("hf_hub_download", revision, name)) if folder is None else folder.joinpath
        return {split: [Path(place(name)) for name in found] for split, found in self._chosen(names).items()}

    def _folder(self) -> Path | None:
        """The folder that holds the repo's files, where it need not be downloaded."""
        own = Path(self.repo).expanduser()
        return own if own.is_dir() else mirrored(self.repo)

    def _listed(self, revision: str) -> list[str]:
        """The parquet files of the repo; where the Hub cannot be asked, those that were downloaded before."""
        try:
            names = self._ask("list_repo_files", revision)
        except ConnectionError:
            from huggingface_hub import snapshot_download

            with suppress(Exception):  # of many kinds, all of which mean that there are none
                found = snapshot_download(self.repo, repo_type="dataset", revision=revision, local_files_only=True)
                names = [path.relative_to(found).as_posix() for path in Path(found).rglob("*.parquet")]
                if names:
                    return sorted(names)
            raise
        return sorted(name for name in names if name.endswith(".parquet"))

    def _ask(self, function: str, revision: str, *arguments: str) -> Any:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        no_answer: Any = HfHubHTTPError.__bases__[0]  # of httpx or httpx2, whichever the client uses
        try:
            ask = getattr(huggingface_hub, function)
            return ask(self.repo, *arguments, repo_type="dataset", revision=revision)
        except (OSError, HFValidationError, no_answer) as error:
            said = " ".join(str(error).split())[:300].rstrip(".")
            raise ConnectionError(
                f"The Hub's data set {self.repo!r} could not be downloaded: {said}. Check the name and the connection, "
                f"or name a folder with a copy in {MIRROR}: <folder>/{self.repo}/<its files>."
            ) from error

    def _chosen(self, names: list[str]) -> dict[str, list[str]]:
        """The files of each split, out of all of the repo's parquet files."""
        if not names:
            remedy = "Read it with the `datasets` library, and give what load_dataset returns."
            raise ValueError(f"Expected parquet files in {self.repo}, but found none. {remedy}")
        splits = self._splits(names)
        tests: Sequence[str] = TESTS if self.test is None else [self.test]
        chosen = {"train": self.train, "test": next((name for name in tests if name in splits), self.test)}
        for argument, name in chosen.items():
            if name is not None and name not in splits:
                found = ", ".join(map(repr, splits))
                raise ValueError(
                    f"Expected a split {name!r} in {self.repo}, but found {found}. Give {argument}= one of these."
                )
        return {key: splits[name] for key, name in chosen.items() if name is not None}

    def _splits(self, names: list[str]) -> dict[str, list[str]]:
        """The files of each split of the configuration."""
        places: dict[str, dict[str, list[str]]] = {}
        for name in names:
            config, split = _place(name)
            places.setdefault(config, {}).setdefault(split, []).append(name)
        if self.config is None and len(places) > 1:
            several = ", ".join(map(repr, places))
            raise ValueError(f"Expected one configuration in {self.repo}, but found {several}. Give config='...'.")
        config = next(iter(places)) if self.config is None else self.config
        if config not in places:
            near = nearest(config, places) or f"Choose one of {', '.join(map(repr, places))}."
            raise ValueError(f"Expected a configuration of {self.repo}, but got config={config!r}. {near.strip()}")
        return places[config]


def _place(name: str) -> tuple[str, str]:
    """The configuration and the split that a parquet file belongs to, by the Hub's ways to name them."""
    *folders, file = name.split("/")
    split = SHARD.fullmatch(file)
    stem = split["split"] if split else file.removesuffix(".parquet")
    if stem.isdigit() and folders:  # config/split/0000.parquet
        stem = folders.pop()
    return "/".join(folders) or "default", stem


def _table(paths: list[Path], columns: list[str]) -> list[list[Any]]:
    """Columns of parquet files, one after another."""
    with extra("data sets of the Hub"):
        import pyarrow as arrow
        import pyarrow.parquet as parquet

    values: list[list[Any]] = [[] for _ in columns]
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
            present = file.schema_arrow.names
            if missing := [name for name in columns if name not in present]:
                near = nearest(missing[0], present)
                found = ", ".join(map(repr, present))
                raise ValueError(f"Expected a column {missing[0]!r} in {path.name}, but found {found}.{near} Name it.")
            table = file.read(columns=columns)
            for number, name in enumerate(columns):
                values[number] += table[name].to_pylist()
        except (arrow.ArrowException, OSError) as error:
            raise ValueError(
                f"Expected {path} to be a whole parquet file, but got: {error}. Download it again."
            ) from error
    return values


def _classes(labels: list[Any]) -> list[str] | None:
    """The names of the classes in order, where labels are texts."""
    return sorted(set(labels)) if labels and all(isinstance(label, str) for label in labels) else None


def _numbers(labels: list[Any], names: list[str] | None, column: str) -> Tensor:
    """Labels as integers ``(N,)``."""
    numbers = None if names is None else {name: number for number, name in enumerate(names)}
    wrong = [label for label in labels if (type(label) is not int if numbers is None else label not in numbers)]
    if wrong:
        expected = "whole numbers, or texts in all rows," if numbers is None else "a class of the train split"
        raise ValueError(f"Expected {expected} in column {column!r}, but got {str(wrong[0])[:80]!r}. Name another.")
    return torch.tensor([label if numbers is None else numbers[label] for label in labels])
