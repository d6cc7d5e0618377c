"""From files of readings and graphs, as users have them, to a store."""

from typing import TYPE_CHECKING

from pgti.lazy import lazy_names

if TYPE_CHECKING:
    from pgti.ingestion.appending import append as append
    from pgti.ingestion.graphs.sources import GraphSource as GraphSource
    from pgti.ingestion.ingestion import ingest as ingest
    from pgti.ingestion.ingestion import read_graph as read_graph
    from pgti.ingestion.options import IngestOptions as IngestOptions
    from pgti.ingestion.readings import Chunk as Chunk
    from pgti.ingestion.readings import Readings as Readings
    from pgti.ingestion.sources import ReadingsSource as ReadingsSource
    from pgti.ingestion.sources import open_readings as open_readings
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
