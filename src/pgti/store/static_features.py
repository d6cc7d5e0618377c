"""What is known of each sensor and does not change: numbers and categories."""

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from pgti.errors import PARSER_ERRORS, DataError, StoreError, machine_fault

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StaticFeatures"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StaticFeatures:
    """Features of the sensors, such as lanes, altitude, kind of road.

    Attributes:
        names: of the S features, all different.
        units: of each feature, "" where unknown or where it has categories.
        values: float64 [N, S]: a number, or the position of a category; NaN where missing.
        categories: of each feature, () where it is numeric.

    Raises:
        DataError: if names repeat, sizes disagree, a number is infinite, or a position is that of
            no category.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: NDArray[np.float64]
    categories: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise DataError(f"the static features cannot be used: {problem}")

    def _problems(self) -> list[str]:
        num_features = len(self.names)
        if not num_features or len(set(self.names)) != num_features or "" in self.names:
            return [f"their names are {', '.join(self.names) or 'missing'}, not one each"]
        sizes = {len(self.units), len(self.categories), *self.values.shape[1:]}
        if self.values.ndim != 2 or sizes != {num_features} or self.values.dtype != np.float64:
            return [f"there are {num_features} names for values of shape {self.values.shape}"]
        for name, words, column in zip(self.names, self.categories, self.values.T, strict=True):
            known = column[~np.isnan(column)]
            if np.isinf(known).any():
                return [f"{name} has an infinite value"]
            if len(set(words)) != len(words):
                return [f"{name} has a category twice"]
            if words and not np.isin(known, np.arange(len(words))).all():
                return [f"{name} has a value that is none of its categories"]
        return []

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.values)

    @property
    def is_categorical(self) -> tuple[bool, ...]:
        """Whether each feature has categories."""
        return tuple(bool(words) for words in self.categories)

    @property
    def num_categories(self) -> tuple[int, ...]:
        """Categories of each feature that has them."""
        return tuple(len(words) for words in self.categories if words)

    @property
    def num_values(self) -> int:
        """Numbers of a sensor where each category is a number: numeric features and categories."""
        return self.is_categorical.count(False) + sum(self.num_categories)

    def statistics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean of each numeric feature over the sensors, and its standard deviation.

        A feature that is the same everywhere, or known nowhere, has the standard deviation 1.
        """
        values = self.values[:, ~np.array(self.is_categorical)]
        known = ~np.isnan(values)
        count = np.maximum(known.sum(axis=0), 1)
        low, high = np.where(known, values, np.inf), np.where(known, values, -np.inf)
        mean = np.where(known, values, 0).sum(axis=0) / count
        within = np.clip(mean, low.min(axis=0), high.max(axis=0))  # that of a constant is it
        mean = np.where(known.any(axis=0), within, 0)
        std = np.sqrt(np.where(known, (values - mean) ** 2, 0).sum(axis=0) / count)
        return mean, np.where(std > 0, std, 1)

    def to_frame(self, node_ids: tuple[str, ...]) -> "pd.DataFrame":
        """The features as a table [N, S], a row for each sensor.

        Args:
            node_ids: ids of the sensors, its index.
        """
        import pandas as pd  # noqa: PLC0415 - a store is opened without it

        columns: dict[str, Any] = {}
        for name, words, column in zip(self.names, self.categories, self.values.T, strict=True):
            codes = np.where(np.isnan(column), -1, column).astype(np.int64)
            columns[name] = (
                pd.Categorical.from_codes(codes, categories=pd.Index(words)) if words else column
            )
        return pd.DataFrame(columns, index=pd.Index(node_ids, name="sensor"))

    def describe(self) -> str:
        """The features in one line, such as "lanes, altitude (m), kind (3 categories)"."""
        parts = []
        for name, unit, words in zip(self.names, self.units, self.categories, strict=True):
            what = f"{len(words)} categories" if len(words) > 1 else "1 category" if words else unit
            parts.append(f"{name} ({what})" if what else name)
        return ", ".join(parts)

    # -- files ------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The content of a file, an .npz without Python objects."""
        content = io.BytesIO()
        words = [word for each in self.categories for word in each]
        np.savez(
            content,
            allow_pickle=False,
            names=np.array(self.names, dtype=np.str_),
            units=np.array(self.units, dtype=np.str_),
            values=self.values,
            categories=np.array(words, dtype=np.str_),
            num_categories=np.array([len(each) for each in self.categories], dtype=np.int64),
        )
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, num_nodes: int, name: str) -> Self:
        """What `to_bytes` returned, without unpickling.

        Args:
            content: of the file.
            num_nodes: N.
            name: what messages call the file.

        Raises:
            StoreError: if it is anything else.
        """
        problem = f"{name} cannot be read as static features"
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                # Numbers are not compressed: a file that unpacks to more is none of ours.
                if sum(each.file_size for each in archive.infolist()) > len(content):
                    raise StoreError(f"{problem}: it is compressed")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                names, units, words = (
                    tuple(arrays[each].tolist()) for each in ("names", "units", "categories")
                )
                values, counts = arrays["values"], arrays["num_categories"]
            ends = np.cumsum(counts).tolist()
            if values.shape[:1] != (num_nodes,) or (counts < 0).any() or ends[-1:] != [len(words)]:
                raise StoreError(f"{problem}: its arrays contradict one another")
            firsts = [0, *ends[:-1]]
            categories = tuple(words[i:j] for i, j in zip(firsts, ends, strict=True))
            return cls(names=names, units=units, values=values, categories=categories)
        except StoreError:
            raise
        except (DataError, *PARSER_ERRORS) as error:
            reason = machine_fault(error) or " ".join(str(error).split())
            raise StoreError(f"{problem}: {reason}") from None
