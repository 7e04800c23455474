"""Maps each table property and feature of Delta to the writer that can append correctly.

The direct writer is correct if readers see the same as after an append of delta-spark. The layout of files
(``delta.autoOptimize``) and the retention of old files and commits do not matter, because the direct writer removes
none. A property or feature without a row requires delta-spark, so the direct writer stays correct with a newer Delta.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pyspark.sql import types as T

_PREFIX = "delta."
_CONSTRAINT, _FEATURE = f"{_PREFIX}constraints.", f"{_PREFIX}feature."
# Values that mean the same as if the property were not set.
_OFF = {"", "false", "none", "0", "classic"}


@dataclass(frozen=True)
class Row:
    """The writer that a property or feature allows, and why; ``none`` if neither can keep the table correct."""

    writer: Literal["direct", "delta-spark", "none"]
    why: str = ""


_DIRECT = Row("direct")
_DIRECT_PROPERTIES = [
    # It allows appends.
    "delta.appendOnly",
    # Retention of files, commits and checkpoints, and the form of checkpoints: they do not affect appends.
    "delta.checkpoint.writeStatsAsJson",
    "delta.checkpoint.writeStatsAsStruct",
    "delta.checkpointInterval",
    "delta.checkpointRetentionDuration",
    "delta.deletedFileRetentionDuration",
    "delta.dropFeatureTruncateHistory.retentionDuration",
    "delta.enableExpiredLogCleanup",
    "delta.enableFullRetentionRollback",
    "delta.logRetentionDuration",
    "delta.sampleRetentionDuration",
    # Size, names and format of the files: readers follow the log, and bronze maintain compacts.
    "delta.autoOptimize",
    "delta.autoOptimize.autoCompact",
    "delta.autoOptimize.optimizeWrite",
    "delta.parquet.format.version",
    "delta.randomPrefixLength",
    "delta.randomizeFilePrefixes",
    # Statistics are bounds; having more or fewer of them does not change any query result.
    "delta.dataSkippingNumIndexedCols",
    "delta.dataSkippingStatsColumns",
    "delta.dataSkippingStringPrefixLength",
    # Readers find the inserts of a commit in its files; only DELETE and UPDATE write deletion vectors.
    "delta.enableChangeDataCapture",
    "delta.enableChangeDataFeed",
    "delta.enableDeletionVectors",
    # Commits set isBlindAppend, like those of Spark.
    "delta.isolationLevel",
    # They only matter when a table is created, or converted from Iceberg.
    "delta.castIcebergTimeType",
    "delta.ignoreIcebergBucketPartition",
    "delta.ignoreProtocolDefaults",
    "delta.minReaderVersion",
    "delta.minWriterVersion",
    # Details of a feature or of another property, whose row decides.
    "delta.columnMapping.maxColumnId",
    "delta.coordinatedCommits.commitCoordinatorConf-preview",
    "delta.coordinatedCommits.tableConf-preview",
    "delta.inCommitTimestampEnablementTimestamp",
    "delta.inCommitTimestampEnablementVersion",
    "delta.requireCheckpointProtectionBeforeVersion",
    "delta.rowTracking.materializedRowCommitVersionColumnName",
    "delta.rowTracking.materializedRowIdColumnName",
    "delta.rowTrackingSuspended",
]
_ICEBERG = Row("delta-spark", "Iceberg readers need files and metadata in another form")
_REDIRECTED = Row("none", "the table is redirected to another one; give the path of that table")

PROPERTIES: dict[str, Row] = {
    **dict.fromkeys(_DIRECT_PROPERTIES, _DIRECT),
    "delta.checkpointPolicy": Row("delta-spark", "only delta-spark writes checkpoints of that kind"),
    "delta.columnMapping.mode": Row("delta-spark", "columns have other names in the files"),
    "delta.compatibility.symlinkFormatManifest.enabled": Row("delta-spark", "only delta-spark updates the manifests"),
    "delta.enableIcebergCompatV1": _ICEBERG,
    "delta.enableIcebergCompatV2": _ICEBERG,
    "delta.enableIcebergCompatV3": _ICEBERG,
    "delta.universalFormat.enabledFormats": _ICEBERG,
    "delta.universalFormat.iceberg.atomicConversion.supported": _ICEBERG,
    "delta.enableInCommitTimestamps": Row("delta-spark", "commits contain their own timestamp"),
    "delta.enableMaterializePartitionColumnsFeature": Row("delta-spark", "files hold the partition columns"),
    "delta.writePartitionColumnsToParquet": Row("delta-spark", "files hold the partition columns"),
    "delta.enableRowTracking": Row("delta-spark", "rows have ids"),
    "delta.enableTypeWidening": Row("delta-spark", "columns may have had other types"),
    "delta.enableVariantShredding": Row("delta-spark", "files hold shredded columns"),
    "delta.coordinatedCommits.commitCoordinator-preview": Row("none", "commits are kept outside of the table's log"),
    "delta.redirectReaderWriter-preview": _REDIRECTED,
    "delta.redirectWriterOnly-preview": _REDIRECTED,
    "delta.setTransactionRetentionDuration": Row(
        "none", "Delta then drops the transactions with which writers detect conflicts; unset it (ALTER TABLE)"
    ),
}

_BY_CATALOG = Row("none", "a catalog keeps the table's commits")
_SPARK = Row("delta-spark")

FEATURES: dict[str, Row] = {
    # Properties and columns say what these features require of an append: constraints, generated and mapped columns.
    "appendOnly": _DIRECT,
    "changeDataFeed": _DIRECT,
    "checkConstraints": _DIRECT,
    "columnMapping": _DIRECT,
    "deletionVectors": _DIRECT,
    "generatedColumns": _DIRECT,
    "invariants": _DIRECT,
    "timestampNtz": _DIRECT,
    "adaptiveMetadata-preview": _BY_CATALOG,
    "catalogManaged": _BY_CATALOG,
    **dict.fromkeys(
        [
            "allowColumnDefaults",
            "checkpointProtection",
            "clustering",
            "coordinatedCommits-preview",
            "domainMetadata",
            "geospatial",
            "geospatial-dev",
            "icebergCompatV1",
            "icebergCompatV2",
            "icebergCompatV3",
            "identityColumns",
            "inCommitTimestamp",
            "materializePartitionColumns",
            "rowTracking",
            "typeWidening",
            "typeWidening-preview",
            "v2Checkpoint",
            "vacuumProtocolCheck",
            "variantShredding",
            "variantShredding-preview",
            "variantType",
            "variantType-preview",
        ],
        _SPARK,
    ),
}

# Delta accepts names of properties and features in any case.
_PROPERTY_ROWS = {name.lower(): row for name, row in PROPERTIES.items()}
_FEATURE_ROWS = {name.lower(): row for name, row in FEATURES.items()}
_UNKNOWN_PROPERTY = Row("delta-spark", "the direct writer does not know it")


def find_feature(name: str) -> Row:
    """Return the row of a table feature."""
    return _FEATURE_ROWS.get(name.lower(), _SPARK)


def find_property(name: str, value: str) -> Row:
    """Return the row of a table property with its value; direct if it is off, or not one of Delta's."""
    key = name.lower()
    if not key.startswith(_PREFIX):
        return _DIRECT
    if key.startswith(_CONSTRAINT):
        return _SPARK
    if key.startswith(_FEATURE):
        return find_feature(key.removeprefix(_FEATURE))
    row = _PROPERTY_ROWS.get(key, _UNKNOWN_PROPERTY)
    return _DIRECT if row is not _UNKNOWN_PROPERTY and value.strip().lower() in _OFF else row


def list_reasons(properties: Mapping[str, str], features: Iterable[str]) -> Iterator[str]:
    """List why the direct writer cannot append to a table: a line per property, and one for all features."""
    for name, value in sorted(properties.items()):
        row = find_property(name, value)
        if name.lower().startswith(_CONSTRAINT):
            yield f"the CHECK constraint {name[len(_CONSTRAINT) :]}"
        elif row.writer != "direct":
            yield f"{name} = {value}" + (f" ({row.why})" if row.why else "")
    if unfit := sorted(name for name in features if find_feature(name).writer != "direct"):
        yield f"table features that the direct writer does not support: {', '.join(unfit)}"


def list_misfits(properties: Mapping[str, str], features: Iterable[str]) -> list[str]:
    """List the properties and features that neither writer supports, a line for each."""
    rows = [(f"property {name} = {value}", find_property(name, value)) for name, value in sorted(properties.items())]
    rows += [(f"table feature {name}", find_feature(name)) for name in sorted(features)]
    return [f"{what}: {row.why}" for what, row in rows if row.writer == "none"]


# Keys of a column's metadata that do not affect an append; a property decides on column mapping.
_HARMLESS = ("delta.columnMapping.",)
# Spark's metadata keys for CHAR(n) and VARCHAR(n), and for the DEFAULT of a column.
_LENGTH, _DEFAULT = "__CHAR_VARCHAR_TYPE_STRING", "CURRENT_DEFAULT"


def list_column_reasons(schema: T.DataType, prefix: str = "") -> Iterator[str]:
    """List the columns that the direct writer cannot fill correctly.

    Arrays and maps need no check: only map values can be null, and all tables allow that.
    """
    for column in schema if isinstance(schema, T.StructType) else ():
        name = prefix + column.name
        if not column.nullable:
            yield f"the NOT NULL column {name}"
        if _LENGTH in column.metadata:
            yield f"the column {name} of type {column.metadata[_LENGTH]}"
        if any(_is_rule(key) for key in column.metadata):
            yield f"the computed column {name}"
        yield from list_column_reasons(column.dataType, f"{name}.")


def _is_rule(key: str) -> bool:
    return key == _DEFAULT or (key.startswith("delta.") and not key.startswith(_HARMLESS))
