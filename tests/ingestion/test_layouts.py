"""What comes out of each layout of readings: a store, or a refusal in one line."""

from pathlib import Path

import numpy as np
import pytest

import pgti
from pgti.errors import PgtiError, name_flags

from .layouts import Layout, Refused
from .layouts_arrays import ARRAYS, FILES, LABELLED_ARRAYS, TABLES
from .layouts_text import LONG_TEXT, TRANSPOSED_TEXT, WIDE_TEXT

LAYOUTS = WIDE_TEXT | TRANSPOSED_TEXT | LONG_TEXT | ARRAYS | LABELLED_ARRAYS | TABLES | FILES


def test_the_table_is_long() -> None:
    """Layouts have names of their own, and there are at least sixty."""
    tables = (WIDE_TEXT, TRANSPOSED_TEXT, LONG_TEXT, ARRAYS, LABELLED_ARRAYS, TABLES, FILES)
    assert len(LAYOUTS) == sum(map(len, tables)) >= 60


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layout(tmp_path: Path, layout: Layout) -> None:
    """Values, ids, channels and times are those that were written, or the refusal names a way."""
    source, target = layout.make(tmp_path), tmp_path / "store"
    if isinstance(layout.expected, Refused):
        with pytest.raises(PgtiError) as caught, name_flags():
            pgti.ingest(source, target, **layout.options)
        message = str(caught.value)
        assert "\n" not in message
        assert [word for word in layout.expected.words if word not in message] == []
        assert not target.exists()
        return
    store = pgti.ingest(source, target, **layout.options)
    expected = layout.expected
    meta = store.meta
    found = (meta.start, meta.interval_seconds, meta.time_zone)
    assert found == (expected.start, expected.interval, expected.zone)
    assert expected.ids in (None, meta.node_ids)
    assert expected.channels in (None, meta.channels)
    values = store.read(0, meta.num_steps)
    np.testing.assert_array_equal(values, expected.values.astype(np.float32))
    assert expected.note in " ".join(store.notes)
    if layout.peer is not None:
        np.testing.assert_array_equal(values[..., 0], layout.peer(source).astype(np.float32))
