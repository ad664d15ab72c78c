"""Texts as rows of numbers: n-grams of words and letters, hashed."""

import math
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["hashed_ngrams"]


def hashed_ngrams(texts: Iterable[str], num_features: int = 2048) -> Tensor:
    """Count the n-grams of texts, each in the place that its hash says (Weinberger et al. 2009).

    They are words, pairs of words, and three to five letters within a word, in lower case. A place gets
    ``1 + log(count)`` with a sign that the hash says, too; rows have the length 1. Nothing is learned from the texts,
    and a text is the same row whatever the others are.

    Args:
        texts: any number of them.
        num_features: size of a row.

    Shape:
        ``(N, num_features)``, float32.

    Example:
        >>> x = hashed_ngrams(["I lost my card", "my card is lost", "exchange rates"])
        >>> x @ x.T
        tensor([[1.0000, 0.8429, 0.0000],
                [0.8429, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]])
    """
    texts, places, values = list(texts), array("q"), array("d")
    for row, text in enumerate(texts):
        for ngram, count in Counter(ngrams(text)).items():
            hashed = zlib.crc32(ngram.encode())
            places.append(row * num_features + (hashed >> 1) % num_features)
            values.append((1 + math.log(count)) * (1 if hashed & 1 else -1))
    rows = torch.zeros(len(texts) * num_features)
    if places:
        index, value = (torch.from_numpy(np.frombuffer(column, column.typecode).copy()) for column in (places, values))
        rows.index_add_(0, index, value.float())
    rows = rows.view(len(texts), num_features)
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp(min=1e-6)


def ngrams(text: str) -> Iterator[str]:
    """The n-grams of a text.

    Example:
        >>> list(ngrams("My card"))[:8]
        ['my', 'card', 'my card', '<my', 'my>', '<my>', '<ca', 'car']
    """
    words = re.findall(r"\w+", text.lower())
    yield from words
    yield from (f"{first} {second}" for first, second in zip(words, words[1:], strict=False))
    for word in words:
        marked = f"<{word}>"
        for size in (3, 4, 5):
            yield from (marked[start : start + size] for start in range(len(marked) - size + 1))
