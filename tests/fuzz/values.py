"""Wrong values in place of right ones: in trees of plain values, and in arrays."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["change_array", "change_text", "change_tree", "limit", "wrong_value"]

_LIMITS = (0, 1, -1, 2, 7, 255, 2**15, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**62,
           2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 10**400)  # fmt: skip
_FLOATS = (0.5, -0.0, 1e-320, 1e30, 3.5e38, 1e308, float("inf"), float("-inf"), float("nan"))
_TEXTS = ("", " ", "0", "x", "nan", "1_0", "1e999", "NULL", "a\nb", "a\0b", "\x1b[31m", "\u202e",
          "é", "2024-13-45", "../../etc/passwd", "__class__", "=1+1", "x" * 70_000)  # fmt: skip
_DTYPES = ("?", "i1", "<i4", ">i8", "u8", "f2", "<f4", ">f8", "c16", "S3", "U5", "M8[s]", "m8[ns]")


def limit(rng: random.Random) -> int:
    """A whole number at an end of some range."""
    return rng.choice(_LIMITS) + rng.choice((0, 0, 1, -1))


def wrong_value(rng: random.Random) -> Any:
    """A plain value of any kind."""
    deep: Any = 0
    for _ in range(rng.choice((1, 3, 900, 20_000)) if rng.random() < 0.02 else 0):
        deep = [deep]
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: limit(rng),
        lambda: rng.choice(_FLOATS),
        lambda: rng.choice(_TEXTS),
        list,
        dict,
        lambda: [wrong_value(rng) for _ in range(3)],
        lambda: {rng.choice(_TEXTS): wrong_value(rng)},
        lambda: deep,
    )
    return rng.choice(kinds)()


def change_text(rng: random.Random, text: str) -> str:
    """A text with a part left out, repeated or replaced."""
    first, last = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    inner = rng.choice(("", text[first:last] * 2, rng.choice(_TEXTS), str(limit(rng))))
    return text[:first] + inner + text[last:]


def change_tree(rng: random.Random, tree: Any) -> Any:
    """A copy of nested lists and mappings (and arrays) with one to three changes."""
    changed = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        changed = _change_once(rng, changed)
    return changed


def _change_once(rng: random.Random, tree: Any) -> Any:
    inside = isinstance(tree, dict | list | tuple) and len(tree) > 0
    if not inside or rng.random() < 0.04:
        return _changed_leaf(rng, tree)
    if isinstance(tree, tuple):
        return tuple(_change_once(rng, list(tree)))
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = rng.choice(keys)
    chance = rng.random()
    if chance < 0.08:
        del tree[key]
    elif chance < 0.14:
        tree[key] = copy.deepcopy(tree[rng.choice(keys)])
    elif chance < 0.2 and isinstance(tree, dict):
        tree[rng.choice((change_text(rng, str(key)), wrong_key(rng)))] = tree.pop(key)
    elif chance < 0.24 and isinstance(tree, list):
        tree.insert(key, copy.deepcopy(tree[key]))
    else:
        tree[key] = _change_once(rng, tree[key])
    return tree


def wrong_key(rng: random.Random) -> str:
    """A name that nobody expects."""
    return str(rng.choice(_TEXTS))[:200]


def _changed_leaf(rng: random.Random, leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return change_array(rng, leaf)
    if isinstance(leaf, str) and rng.random() < 0.5:
        return change_text(rng, leaf)
    if isinstance(leaf, int | float) and not isinstance(leaf, bool) and rng.random() < 0.5:
        return rng.choice((limit(rng), -leaf, leaf + 1, str(leaf), rng.choice(_FLOATS)))
    return wrong_value(rng)


def change_array(rng: random.Random, array: np.ndarray) -> np.ndarray:
    """An array of another dtype, shape or order, or with other elements."""
    changes = (_other_dtype, _other_shape, _other_length, _other_elements, _other_order)
    with np.errstate(all="ignore"):
        return rng.choice(changes)(rng, np.asarray(array))


def _other_dtype(rng: random.Random, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "V":
        return np.zeros(array.shape)
    try:
        return array.astype(rng.choice(_DTYPES))
    except (TypeError, ValueError):
        return np.zeros(array.shape, rng.choice(_DTYPES))


def _other_shape(rng: random.Random, array: np.ndarray) -> np.ndarray:
    return rng.choice((array.ravel(), array.T, array[None], array[..., None]))


def _other_length(rng: random.Random, array: np.ndarray) -> np.ndarray:
    if not array.ndim:
        return np.repeat(array[None], rng.choice((0, 2)), axis=0)
    axis = rng.randrange(array.ndim)
    kept = np.arange(array.shape[axis])
    last = len(kept) - 1
    kept = rng.choice(
        (kept[:0], kept[:1], kept[:-1], kept[1:], np.append(kept, [last] * (last > 0)))
    )
    return np.take(array, kept, axis=axis) if array.shape[axis] else array


def _other_elements(rng: random.Random, array: np.ndarray) -> np.ndarray:
    changed = np.array(array)
    for _ in range(rng.choice((1, 1, 3))):
        value = rng.choice((limit(rng), rng.choice(_FLOATS), rng.choice(_TEXTS[:6])))
        try:
            changed.reshape(-1)[rng.randrange(max(1, changed.size))] = value
        except (IndexError, OverflowError, TypeError, ValueError):
            continue
    return changed


def _other_order(rng: random.Random, array: np.ndarray) -> np.ndarray:
    if array.ndim and rng.random() < 0.5:
        return array[::-1]
    if array.dtype.kind in "iuf":
        return array.astype(array.dtype.newbyteorder())
    return np.asfortranarray(array)
