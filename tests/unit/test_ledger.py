"""The notes in our commits: read from any log, carried over to the next commit, and added up."""

import json

import pytest

from bronze.delta.ledger import CommitNote, TopicLedger, new_note
from bronze.delta.log import FoundNote, find_note, find_restore, parse_commit
from bronze.offsets import EMPTY, OffsetSet
from bronze.resume import find_holes


def make_commit(note: CommitNote | None = None, shared: int = -1, **info: object) -> str:
    lines: list[dict] = [{"commitInfo": {"operation": "WRITE", **info}}]
    if note:
        lines[0]["commitInfo"]["userMetadata"] = note.to_json()
    if shared >= 0:
        lines.append({"txn": {"appId": "bronze-writer", "version": shared}})
    return "\n".join(map(json.dumps, lines))


def test_a_note_is_read_as_it_was_written():
    ledger = {"t": TopicLedger(begins={0: 5}, read=OffsetSet({0: [(5, 9)]}), records={0: 4})}
    note = new_note("ingest", topic="t", offsets=OffsetSet({0: [(5, 9)]}), ledger=ledger)
    assert parse_commit(make_commit(note, 3)).note == note


@pytest.mark.parametrize("metadata", [None, "text", '{"writer": "another"}', {"an": "object"}, 7, "{"])
def test_what_others_write_there_is_no_note(metadata: object):
    assert parse_commit(make_commit(userMetadata=metadata, operation=None)).note is None


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x1c"])
def test_a_sign_that_python_takes_for_the_end_of_a_line_ends_no_action(sign: str):
    line = json.dumps({"add": {"stats": f"a{sign}b"}}, ensure_ascii=sign == "\x1c")
    assert parse_commit(f"{make_commit(shared=4)}\n{line}").shared == 4


def test_the_newest_note_is_found_behind_commits_of_others_and_of_an_older_version():
    note = new_note("ingest")
    log = [make_commit(), make_commit(note, 1), make_commit(shared=2), make_commit(), make_commit()]
    found = find_note(lambda version: log[version], 4, 2)
    assert (found.version, found.note) == (1, note)


def test_a_foreign_commit_that_copies_a_note_is_not_ours():
    notes = [new_note("ingest"), new_note("ingest")]
    log = [make_commit(notes[0], 1), make_commit(notes[1])]
    assert find_note(lambda version: log[version], 1, 1).note == notes[0]


@pytest.mark.parametrize("damaged", ["", "\0\0", '{"commitInfo":{"us', "\udcff", make_commit()])
def test_a_note_behind_a_damaged_commit_is_the_newest_only_if_that_was_not_ours(damaged: str):
    note = new_note("ingest")
    log = [make_commit(note, 1), damaged, make_commit()]
    assert find_note(lambda version: log[version], 2, 1) == FoundNote(0, note)
    assert find_note(lambda version: log[version], 2, 2) == FoundNote(0, note, is_newest=False)


def test_without_a_commit_of_ours_or_with_a_cleaned_log_there_is_no_note():
    assert find_note(lambda _: make_commit(), 5, 0).note is None
    assert find_note(lambda version: None if version < 3 else make_commit(), 5, 1).note is None


def test_a_restore_is_found_among_the_newest_commits():
    log = [make_commit(operation="RESTORE"), make_commit(), make_commit(operation="RESTORE"), make_commit()]
    assert find_restore(lambda version: log[version], 0, 3) == 2
    assert find_restore(lambda version: log[version], 3, 3) is None


def test_what_is_read_is_added_up_and_begins_at_the_lowest():
    ledger = TopicLedger().add_read(OffsetSet({0: [(5, 9)]}), {0: 4}, {0: 5, 1: 0})
    ledger = ledger.add_read(OffsetSet({0: [(10, 12)], 1: [(3, 3)]}), {0: 3, 1: 1}, {0: 7, 1: 0})
    assert (ledger.begins, ledger.read, ledger.records) == ({0: 5, 1: 0}, {0: [(5, 12)], 1: [(3, 3)]}, {0: 7, 1: 1})


def test_holes_are_what_kafka_lacks_and_nobody_read_whatever_lies_beyond():
    ledger = TopicLedger(read=OffsetSet({0: [(0, 4), (20, 29)]}), lost=OffsetSet({0: [(5, 6)]}))
    present = OffsetSet({0: [(9, 9)]})
    holes = find_holes(ledger, {0: 0, 1: 0}, {0: (15, 40), 1: (3, 9)}, lambda _: present)
    assert holes == {0: [(7, 8), (10, 14)], 1: [(0, 2)]}


def test_nothing_is_promised_before_the_ingestion_began():
    assert find_holes(TopicLedger(), {0: 15}, {0: (15, 40)}, lambda _: EMPTY) == {}
