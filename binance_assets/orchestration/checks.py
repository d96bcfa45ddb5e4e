"""Checks: the asset check ``gap_free``, its spec, its results, and what past results show.

The check speaks of the state of the asset: it fails while a partition that was asked for is not in the lake. It is
blocking and unpartitioned. A step evaluates it once, at its end. What changes the state without a step evaluates it
again: the command line, and the sensor ``lake_state``.

Here belongs everything about the check. What does not belong here: which partitions are not there (``gaps``), and the
validation itself (``completeness``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Final

import dagster as dg

from binance_assets.model.outside import MESSAGE, markdown, printable
from binance_assets.model.results import PartitionResult, format_spans, group_by_reason, name_partitions, other_verdicts
from binance_assets.model.series import Series
from binance_assets.model.wording import name_some
from binance_assets.orchestration.dagster_internals.event_reads import (
    AssetCheckExecutionRecord,
    check_evaluations,
    latest_check_records,
    run_of_latest_check,
)
from binance_assets.orchestration.dagster_internals.event_storage import PLANNED
from binance_assets.orchestration.events import report_stored
from binance_assets.orchestration.gaps import Gap, Gaps, digest, explained, find_all_gaps
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.metrics import RunMetrics
from binance_assets.storage.lake import Lake

CHECK_NAME: Final = "gap_free"
_MAX_NAMED: Final = 5
_MAX_TABLE_ROWS: Final = 1_000
_MAX_EVALUATIONS: Final = 500
# An evaluation has the digest only if its tables do not name all absent partitions.
_DIGEST: Final = "absent_digest"
_COUNT: Final = "days_absent"
_TABLES: Final = ("refused", "absent")


def gap_free_spec(key: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the spec of the check on the asset ``key``."""
    return dg.AssetCheckSpec(
        CHECK_NAME,
        asset=key,
        blocking=True,
        description="Every partition that was ever asked for is in the lake: its candles are valid, and none with "
        "trades is missing, by the exchange's own totals. A partition that is not there is named until it is, or until "
        "a person accepts it. A refused partition is not written, and a stored one is not replaced by a worse one.",
    )


def gap_free_result(
    refused: Sequence[PartitionResult],
    verdicts: Mapping[str, int],
    metrics: RunMetrics,
    earlier: Mapping[str, str] | None = None,
    gaps: Sequence[Gap] = (),
) -> dg.AssetCheckResult:
    """Return the result of the check for a step.

    Args:
        refused: The partitions that the step did not write.
        verdicts: How many partitions were written, by verdict.
        metrics: What the step did.
        earlier: The other partitions that are not in the lake although they were asked for; None for none.
        gaps: The first of those, with their reasons.
    """
    earlier = earlier or {}
    metadata: dict[str, dg.MetadataValue] = {
        "days_accepted": dg.MetadataValue.int(sum(verdicts.values())),
        "days_refused": dg.MetadataValue.int(len(refused)),
        "verdicts": dg.MetadataValue.json(other_verdicts(verdicts)),
        **metrics.metadata(),
    }
    if refused:
        metadata["refused"] = dg.MetadataValue.table([_record(result) for result in refused[:_MAX_TABLE_ROWS]])
    metadata |= _state_metadata({*earlier, *(result.partition.key for result in refused)}, gaps, metadata)
    texts = [format_refused(refused)] if refused else []
    texts += [format_gaps(len(earlier), gaps)] if earlier else []
    return dg.AssetCheckResult(
        passed=not texts,
        check_name=CHECK_NAME,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_description("; ".join(texts)),
        metadata=metadata,
    )


def _state_metadata(
    absent: Set[str], gaps: Sequence[Gap], others: Mapping[str, dg.MetadataValue] | None = None
) -> dict[str, dg.MetadataValue]:
    """Return the metadata that names the absent partitions, for the page and for :func:`named_digest`.

    Args:
        absent: The keys of all absent partitions.
        gaps: Those that the step did not refuse itself; the first of them.
        others: The other metadata, with the table of what the step refused.
    """
    metadata: dict[str, dg.MetadataValue] = {_COUNT: dg.MetadataValue.int(len(absent))}
    if gaps:
        metadata["absent"] = dg.MetadataValue.table([_gap_record(gap) for gap in gaps])
    if named_partitions({**(others or {}), **metadata}) != absent:
        metadata[_DIGEST] = dg.MetadataValue.text(digest(absent))
    return metadata


def _description(text: str) -> str | None:
    return markdown(text, 2 * _MAX_NAMED * MESSAGE) if text else None  # the UI takes it for Markdown


def _gap_record(gap: Gap) -> dg.TableRecord:
    reason = printable(gap.reason, MESSAGE)
    return dg.TableRecord({"day": gap.key, "verdict": gap.verdict, "missing": gap.missing, "reason": reason})


def refresh_check(instance: dg.DagsterInstance, lake: Lake, series: Series) -> Gaps:
    """Let Dagster show what is true now of one series; see :func:`refresh_checks`."""
    return refresh_checks(instance, lake, [series])[series]


def refresh_checks(instance: dg.DagsterInstance, lake: Lake, series: Sequence[Series]) -> dict[Series, Gaps]:
    """Let Dagster show what is true now: report partitions of the lake, and evaluate the check again where it is wrong.

    A partition that Dagster shows as failed although the lake holds it is reported. A check whose latest evaluation
    names other partitions than those that are absent gets another evaluation, outside a run. A check that a run is
    about to evaluate is left to that run.

    Args:
        instance: The instance.
        lake: The lake.
        series: The series whose assets have the check.

    Returns:
        The gaps of each series.

    Raises:
        LakeError: A file of a series may not be read.
    """
    found = find_all_gaps(instance, lake, series)
    records = latest_check_records(instance, [_check_key(member) for member in series]) if series else {}
    for member in series:
        report_stored(instance, member, list(found[member].stored.items()))
        record = records.get(_check_key(member))
        if not _is_settled(instance, record, found[member].absent):
            instance.report_runless_asset_event(_evaluation(instance, member, found[member].absent))
    return found


def _check_key(series: Series) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(asset_key(series), CHECK_NAME)


def _is_settled(
    instance: dg.DagsterInstance, record: AssetCheckExecutionRecord | None, absent: Mapping[str, str]
) -> bool:
    """Return whether the latest execution of a check shows the partitions that are absent, or is about to."""
    if record is None:
        return not absent  # the check has nothing to say of a series that nobody asked for
    if record.status.value == PLANNED:
        run = instance.get_run_by_id(record.run_id)
        return run is not None and not run.is_finished
    named = _digest_in(record)
    return named == digest(absent) or (named is None and not absent and record.status.value == "SUCCEEDED")


def _digest_in(record: AssetCheckExecutionRecord) -> str | None:
    event = record.event.dagster_event if record.event else None
    evaluation = event.event_specific_data if event else None
    return named_digest(evaluation) if isinstance(evaluation, dg.AssetCheckEvaluation) else None


def named_digest(evaluation: dg.AssetCheckEvaluation) -> str | None:
    """Return the digest of the partitions that are absent by an evaluation; None if it does not name them all.

    The latter is so of another check, and of an evaluation of version 0.1.0.
    """
    value = evaluation.metadata.get(_DIGEST)
    if value is not None:
        return str(value.value)
    return digest(named_partitions(evaluation.metadata)) if _COUNT in evaluation.metadata else None


def named_partitions(metadata: Mapping[str, dg.MetadataValue]) -> set[str]:
    """Return the keys of the partitions in the tables of an evaluation."""
    tables = [metadata.get(name) for name in _TABLES]
    return {
        str(record.data["day"])
        for table in tables
        if isinstance(table, dg.TableMetadataValue)
        for record in table.records
    }


def is_latest(instance: dg.DagsterInstance, series: Series, run_id: str) -> bool:
    """Return whether the asset's page shows the evaluation of this run, and not one that was planned later."""
    return run_of_latest_check(instance, _check_key(series)) == run_id


def _evaluation(instance: dg.DagsterInstance, series: Series, absent: Mapping[str, str]) -> dg.AssetCheckEvaluation:
    gaps = explained(instance, series, absent)
    return dg.AssetCheckEvaluation(
        asset_key=asset_key(series),
        check_name=CHECK_NAME,
        passed=not absent,
        description=_description(format_gaps(len(absent), gaps) if absent else ""),
        blocking=True,
        metadata=_state_metadata(absent.keys(), gaps),
    )


def _record(result: PartitionResult) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "day": result.partition.key,
            "verdict": result.verdict,
            "missing": format_spans(result.missing),
            "reason": printable(result.reason, MESSAGE),
        }
    )


def format_refused(refused: Sequence[PartitionResult]) -> str:
    """Return the refused partitions in one line: the first few reasons with their partitions, and how many more."""
    groups = group_by_reason(refused)
    firsts = ((name_partitions(group), group[0]) for group in groups)
    reasons = (f"{names} {first.verdict}: {printable(first.reason, MESSAGE)}" for names, first in firsts)
    return f"{len(refused)} refused: {name_some(reasons, _MAX_NAMED, separator='; ')}"


def format_gaps(count: int, gaps: Sequence[Gap]) -> str:
    """Return gaps in one line: how many, and the first few reasons with their partitions."""
    groups: dict[tuple[str, str], list[str]] = {}
    for gap in gaps:
        groups.setdefault((gap.verdict, gap.reason), []).append(gap.key)
    reasons = (
        f"{name_some(keys, 1)}{f' {verdict}' if verdict else ''}: {printable(reason, MESSAGE)}"
        for (verdict, reason), keys in groups.items()
    )
    more = f"; the reasons of {count - len(gaps):,} more are not listed" if count > len(gaps) else ""
    return f"{count:,} asked for earlier and not in the lake: {name_some(reasons, _MAX_NAMED, separator='; ')}{more}"


def unreachable_partitions(instance: dg.DagsterInstance, key: dg.AssetKey) -> set[tuple[str, str]]:
    """Return run id and partition key of recent refusals that say nothing about the candles.

    Their verdict is ``unreachable`` or ``unfinished``: a later attempt can succeed without a change of the data.

    Args:
        instance: The instance that holds the evaluations.
        key: The asset.
    """
    unreachable = set()
    for run_id, evaluation in check_evaluations(instance, dg.AssetCheckKey(key, CHECK_NAME), _MAX_EVALUATIONS):
        refused = evaluation.metadata.get("refused")
        for row in refused.records if isinstance(refused, dg.TableMetadataValue) else ():
            if row.data["verdict"] in ("unreachable", "unfinished"):
                unreachable.add((run_id, str(row.data["day"])))
    return unreachable
