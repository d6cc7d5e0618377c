"""From files of readings and graphs, as users have them, to a store."""

from pgti.ingest.ingestion import IngestSummary as IngestSummary
from pgti.ingest.ingestion import ingest as ingest
from pgti.ingest.ingestion import read_graph as read_graph
from pgti.ingest.options import IngestOptions as IngestOptions
from pgti.ingest.readings import Chunk as Chunk
from pgti.ingest.readings import Readings as Readings
from pgti.ingest.sources import GraphSource as GraphSource
from pgti.ingest.sources import ReadingsSource as ReadingsSource
from pgti.ingest.sources import open_readings as open_readings
