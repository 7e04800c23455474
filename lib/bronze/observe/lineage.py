"""Sends OpenLineage events of a run: its topic, offsets, tables, versions, counts and schemas.

One run has a START event, a RUNNING event at most once a minute, and COMPLETE, FAIL or ABORT at its end. Each event is
complete: it names the topic and both tables, with the totals of the run until then. The package ``openlineage-python``
(the extra ``lineage``) is imported only if a receiver is given.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

from pyspark.sql import types as T

from bronze.config import IngestConfig
from bronze.errors import BronzeError, ConfigError
from bronze.observe.background import Background
from bronze.observe.metrics import read_version
from bronze.observe.summary import Batch
from bronze.schema import TableSpec
from bronze.transforms import Counts

NAMESPACE_VARIABLE = "OPENLINEAGE_NAMESPACE"
API_KEY_VARIABLE = "OPENLINEAGE_API_KEY"
INSTALL = "pip install openlineage-python"
# Seconds: between two RUNNING events, for an answer of the receiver, and for the last event at the end of the run.
_INTERVAL, _TIMEOUT, _CLOSE_SECONDS = 60, 5, 6
_WAITING = 20


class Table(Protocol):
    """A table of the run."""

    @property
    def path(self) -> str:
        """Its path, as a URI."""

    @property
    def spec(self) -> TableSpec:
        """Its name and columns."""


@dataclass
class Totals:
    """What a run has done until now.

    Attributes:
        counts: Its records.
        batches: Number of committed batches.
        first: The first offset of each partition.
        end: The offset after the last one of each partition.
        versions: The version of each table after the newest commit.
        files: Committed files per table.
        size: Their bytes.
    """

    counts: Counts = field(default_factory=Counts)
    batches: int = 0
    first: dict[int, int] = field(default_factory=dict)
    end: dict[int, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    size: dict[str, int] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        """Add a committed batch."""
        self.counts, self.batches = self.counts + batch.counts, self.batches + 1
        self.first = {**{p: first for p, (first, _) in batch.bounds.items()}, **self.first}
        self.end |= batch.ends
        self.versions |= batch.versions
        for mine, theirs in ((self.files, batch.stats.files), (self.size, batch.stats.size)):
            for table, value in theirs.items():
                mine[table] = mine.get(table, 0) + value


class Lineage:
    """Reports one run to a receiver, in the background."""

    def __init__(self, config: IngestConfig, spark_version: str, tables: Sequence[Table]):
        """
        Args:
            config: Configuration of the ingestion.
            spark_version: Version of Spark.
            tables: Bronze, and the DLQ if one is configured.

        Raises:
            ConfigError: The package openlineage-python is missing.
        """
        self._events = Events(config, spark_version, tables)
        self._emit = make_emitter(config.lineage_url)
        self._calls = Background(f"send lineage to {config.lineage_url}", _WAITING)
        self._totals, self._reported = Totals(), float("-inf")

    def on_start(self) -> None:
        """Report the start."""
        self._send("START")

    def on_batch(self, batch: Batch) -> None:
        """Count a batch, and report it if the last report is old enough."""
        self._totals.add(batch)
        if time.monotonic() - self._reported >= _INTERVAL:
            self._reported = time.monotonic()
            self._send("RUNNING")

    def on_failure(self, error: BronzeError) -> None:
        """A restart is not an end."""

    def on_end(self, error: BaseException | None) -> None:
        """Report how the run ended."""
        kind = "COMPLETE" if error is None else "FAIL" if isinstance(error, Exception) else "ABORT"
        self._send(kind, error)
        self._calls.close(_CLOSE_SECONDS)

    def _send(self, kind: str, error: BaseException | None = None) -> None:
        self._calls.submit(partial(self._emit, self._events.build(kind, self._totals, error)))


class Events:
    """Builds the events of one run."""

    def __init__(self, config: IngestConfig, spark_version: str, tables: Sequence[Table]):
        self._client = import_client()
        self._config, self._spark_version, self._tables = config, spark_version, tables
        self._run_id = str(self._client.generate_new_uuid())
        self._client.set_producer(f"urn:bronze-ingestion:{read_version()}")

    def build(self, kind: str, totals: Totals, error: BaseException | None = None) -> Any:
        """Build an event.

        Args:
            kind: START, RUNNING, COMPLETE, FAIL or ABORT.
            totals: What the run has done.
            error: Why it ended.
        """
        event, facets = self._client.event_v2, self._client.facet_v2
        topic, kinds = self._config.kafka_topic, "BATCH" if self._config.available_now else "STREAMING"
        job_facets = {"jobType": facets.job_type_job.JobTypeJobFacet(kinds, "BRONZE_INGESTION", "JOB")}
        return event.RunEvent(
            eventType=event.RunState[kind],
            eventTime=datetime.now(UTC).isoformat(timespec="milliseconds"),
            run=event.Run(self._run_id, facets=self._describe_run(totals, error)),
            job=event.Job(os.environ.get(NAMESPACE_VARIABLE, "default"), f"bronze-ingest.{topic}", facets=job_facets),
            inputs=[self._describe_topic(totals)],
            outputs=[self._describe_table(table, totals) for table in self._tables],
        )

    def _describe_run(self, totals: Totals, error: BaseException | None) -> dict[str, Any]:
        facets, counts = self._client.facet_v2, totals.counts
        run = facets.RunFacet().with_additional_properties(
            batches=totals.batches,
            valid=counts.valid,
            invalid=counts.invalid,
            present=counts.present,
            byErrorType=dict(counts.by_error_type),
        )
        found = {
            "processing_engine": facets.processing_engine_run.ProcessingEngineRunFacet(
                self._spark_version, "spark", read_version()
            ),
            "bronze_counts": run,
        }
        if error is not None:
            message = str(error) or type(error).__name__
            found["errorMessage"] = facets.error_message_run.ErrorMessageRunFacet(message, "PYTHON")
        return found

    def _describe_topic(self, totals: Totals) -> Any:
        facets = self._client.facet_v2
        broker = self._config.kafka_brokers.split(",")[0].strip()
        offsets = {
            name: {str(p): o for p, o in at.items()} for name, at in (("first", totals.first), ("end", totals.end))
        }
        input_facets = {
            "inputStatistics": facets.input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                rowCount=totals.counts.total
            ),
            "bronze_offsets": facets.InputDatasetFacet().with_additional_properties(**offsets),
        }
        return self._client.event_v2.InputDataset(
            f"kafka://{broker}", self._config.kafka_topic, inputFacets=input_facets if totals.batches else {}
        )

    def _describe_table(self, table: Table, totals: Totals) -> Any:
        facets, name = self._client.facet_v2, table.spec.name.lower()
        counts, is_alone = totals.counts, len(self._tables) == 1
        rows = counts.invalid if name == "dlq" else counts.valid + (counts.invalid if is_alone else 0)
        described = {"schema": facets.schema_dataset.SchemaDatasetFacet(self._list_fields(table.spec.schema))}
        if name in totals.versions:
            version = facets.dataset_version_dataset.DatasetVersionDatasetFacet(str(totals.versions[name]))
            described["version"] = version
        statistics = facets.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            rowCount=rows, size=totals.size.get(name), fileCount=totals.files.get(name)
        )
        return self._client.event_v2.OutputDataset(
            *name_dataset(table.path),
            facets=described,
            outputFacets={"outputStatistics": statistics} if totals.batches else {},
        )

    def _list_fields(self, schema: T.StructType) -> list[Any]:
        make = self._client.facet_v2.schema_dataset.SchemaDatasetFacetFields
        return [
            make(f.name, f.dataType.typeName(), fields=self._list_fields(f.dataType))
            if isinstance(f.dataType, T.StructType)
            else make(f.name, f.dataType.simpleString())
            for f in schema
        ]


def name_dataset(path: str) -> tuple[str, str]:
    """Return namespace and name of a table by OpenLineage's naming rules, such as ``file`` and ``/lake/bronze``."""
    uri = urlsplit(path)
    if uri.scheme in ("", "file"):
        return "file", uri.path
    if uri.scheme in ("s3", "s3a", "s3n"):
        return f"s3://{uri.netloc}", uri.path.strip("/")
    return f"{uri.scheme}://{uri.netloc}", uri.path


def make_emitter(url: str) -> Any:
    """Return a function that sends an event, once, with a timeout; a key comes from OPENLINEAGE_API_KEY."""
    client = import_client()
    key = os.environ.get(API_KEY_VARIABLE, "")
    auth: Mapping[str, Any] = {"auth": client.ApiKeyTokenProvider({"api_key": key})} if key else {}
    return client.HttpTransport(client.HttpConfig(url=url, timeout=_TIMEOUT, retry={"total": 0}, **auth)).emit


@dataclass(frozen=True)
class _Client:
    """The parts of the package that are used here."""

    event_v2: Any
    facet_v2: Any
    set_producer: Any
    generate_new_uuid: Any
    HttpTransport: Any
    HttpConfig: Any
    ApiKeyTokenProvider: Any


def import_client() -> Any:
    """Import openlineage-python.

    Raises:
        ConfigError: It is missing.
    """
    try:
        from openlineage.client import event_v2, facet_v2
        from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport
        from openlineage.client.uuid import generate_new_uuid
    except ImportError:
        raise ConfigError("--lineage-url needs the package openlineage-python", hint=INSTALL) from None
    return _Client(
        event_v2, facet_v2, facet_v2.set_producer, generate_new_uuid, HttpTransport, HttpConfig, ApiKeyTokenProvider
    )
