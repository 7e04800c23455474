"""The audit of a lake, and the verdict that ends most tests of the tables."""

from bronze import audit as run
from bronze.config import AuditConfig
from bronze.ops.audit_report import AuditReport
from tests.support.lake import Lake


def audit(lake: Lake, **changes: str) -> AuditReport:
    return run(lake.configure(AuditConfig, **changes), lake.spark)


def describe(report: AuditReport) -> dict[int, dict[str, list[tuple[int, int]]]]:
    return {a.partition: a.findings for a in report.partitions if a.findings}


def assert_complete(lake: Lake, records: int) -> None:
    """Nothing is lost or duplicated: the audit is complete, and the tables have as many records as were produced."""
    report = audit(lake)
    assert report.is_complete, report.to_text()
    assert sum(p.bronze_rows + p.dlq_rows for p in report.partitions) == records
    assert sum(p.lag for p in report.partitions) == 0
