"""The tables and views of a DuckDB queue file, and the order of the ledger's columns; runs nothing itself.

The ledger is append only: one row an event, ordered by ``seq``. Times are microseconds since the epoch in the
tables (cheap to append) and ``TIMESTAMPTZ`` in the views (right to read). What many jobs share stands once, in
``specs``.
"""

from __future__ import annotations

from collections.abc import Iterable

from nbqueue.jobs import State
from nbqueue.lifecycle import STATE_AFTER, Event

__all__ = [
    "COLUMNS",
    "FINGERPRINT",
    "FIRST_TABLES",
    "SCHEMA_VERSION",
    "STATUSES",
    "TABLES",
    "TABLE_NAMES",
    "VIEWS",
    "VIEW_NAMES",
]

#: Raised by one, with a step in ``migrations``, whenever a file made by an older nbqueue needs one.
SCHEMA_VERSION = 3

COLUMNS: dict[str, str] = {
    "seq": "BIGINT NOT NULL",
    "happened_us": "BIGINT NOT NULL",
    "event": "VARCHAR NOT NULL",
    "job": "BIGINT NOT NULL",
    # What a claim and everything reported under it carry.
    "fence": "BIGINT",
    "attempt": "INTEGER",
    "max_attempts": "INTEGER",
    "base": "INTEGER",
    "crashes": "INTEGER",
    "worker": "INTEGER",
    "started_us": "BIGINT",
    # When it may run: of a dispatch with a delay, and of a retry.
    "due_us": "BIGINT",
    # The payload of a dispatch, the result of a success, the fingerprint of a failure, the text of a log chunk, the
    # JSON of an output, of progress or of what an attempt used.
    "data": "VARCHAR",
    "cause": "VARCHAR",
    "error": "VARCHAR",
    "traceback": "VARCHAR",
    # Of a dispatch.
    "job_id": "UUID",
    "spec": "INTEGER",
    "metadata": "VARCHAR",
    "batch_id": "UUID",
    "row_label": "VARCHAR",
}

_LEDGER = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
_STATES = ", ".join(f"'{state}'" for state in State)
_STATE = f"ENUM({_STATES})"
STATUSES = (
    "pending",
    "scheduled",
    "retrying",
    "held",
    "running",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
)
_STATUS = "ENUM(" + ", ".join(f"'{status}'" for status in STATUSES) + ")"
_OUTCOMES = ("running", "succeeded", "failed", "cancelled", "interrupted", "released", "refused")
_OUTCOME = "ENUM(" + ", ".join(f"'{outcome}'" for outcome in _OUTCOMES) + ")"
# A list of more than a few values becomes a join, which keeps filters from the scan; comparisons do not.
_MOVES = " AND ".join(f"event <> '{event}'" for event in Event if event not in STATE_AFTER)
_CLOSING = ", ".join(
    f"'{event}'"
    for event in (
        Event.SUCCEEDED,
        Event.RETRYING,
        Event.FAILED,
        Event.INTERRUPTED,
        Event.RELEASED,
        Event.REFUSED,
        Event.CANCELLED,
    )
)


def _case(column: str, kind: str, words: Iterable[tuple[str, str]]) -> str:
    """From an event to the word shown for it, as a constant of an enum: casting a million texts costs more."""
    whens = " ".join(f"WHEN '{event}' THEN '{word}'::{kind}" for event, word in words)
    return f"CASE {column} {whens} END"


def _seconds(micros: str) -> str:
    """From microseconds to seconds, 0 where the clock stepped back. ``greatest(0, NULL)`` is 0 in DuckDB, not NULL."""
    return f"(CASE WHEN {micros} < 0 THEN 0 ELSE {micros} END) / 1e6"


_STATE_OF = _case("l.event", _STATE, ((event, state) for event, state in STATE_AFTER.items()))
_STATUS_OF = _case(
    "l.event",
    _STATUS,
    (
        (event, {Event.REFUSED: "held", Event.CANCELLING: "cancelling"}.get(event, state.value))
        for event, state in STATE_AFTER.items()
    ),
)
_OUTCOME_OF = _case(
    "x.event",
    _OUTCOME,
    (
        (event, "failed" if event is Event.RETRYING else event.value)
        for event in Event
        if f"'{event}'" in _CLOSING
    ),
)

TABLES: tuple[str, ...] = (
    "CREATE TABLE meta (name VARCHAR NOT NULL, value BIGINT NOT NULL)",
    (
        "CREATE TABLE specs (spec INTEGER NOT NULL, command VARCHAR NOT NULL, queue VARCHAR NOT NULL,"
        " priority INTEGER NOT NULL, origin VARCHAR NOT NULL, code VARCHAR NOT NULL, tries INTEGER, timeout DOUBLE,"
        " retry VARCHAR NOT NULL)"
    ),
    "CREATE TABLE queues (queue VARCHAR NOT NULL, paused BOOLEAN NOT NULL)",
    "CREATE TABLE code (code VARCHAR NOT NULL, blob BLOB NOT NULL, put_us BIGINT)",
    (
        "CREATE TABLE workers (worker INTEGER NOT NULL, worker_id VARCHAR NOT NULL, host VARCHAR NOT NULL,"
        " pid INTEGER NOT NULL, executor VARCHAR NOT NULL, concurrency INTEGER NOT NULL, joined_us BIGINT NOT NULL,"
        " lease DOUBLE)"
    ),
    # A row's job is one of the ledger's; here stands only which of them the latest input has, as runs of job numbers.
    (
        "CREATE TABLE batches (batch_id UUID NOT NULL, key VARCHAR NOT NULL, command VARCHAR NOT NULL,"
        " origin VARCHAR NOT NULL, head VARCHAR NOT NULL, created_us BIGINT NOT NULL, mapped_us BIGINT NOT NULL,"
        " runs BIGINT[][] NOT NULL)"
    ),
    f"CREATE TABLE ledger ({_LEDGER})",
)

#: Those that a queue file of any version has.
FIRST_TABLES = frozenset(("meta", "specs", "queues", "code", "workers", "ledger"))

VIEW_NAMES = ("jobs", "attempts", "events", "logs", "outputs")

# A view casts what people read; where a job stands is in its last lifecycle event, what it is in its dispatch.

_IS_RUNNING = "l.event IN ('claimed', 'cancelling')"
_HAS_ENDED = "l.event IN ('succeeded', 'failed', 'cancelled')"
# A cancelled job may never have run; the two others have.
_HAS_RUN = "(l.event IN ('succeeded', 'failed') OR (l.event = 'cancelled' AND l.started_us IS NOT NULL))"
_BEGAN = f"""(CASE WHEN {_IS_RUNNING} THEN f.claimed_us
                 WHEN l.event IN ('succeeded', 'failed', 'retrying') THEN coalesce(l.started_us, f.claimed_us)
                 WHEN l.attempt > 0 THEN f.ran_us END)"""

# A worker's death has none of its own, but a cause; its sentence names the worker, so it is never the same.
FINGERPRINT = "coalesce(data, CASE cause WHEN 'error' THEN split_part(error, ':', 1) ELSE cause END)"

# A join in DuckDB 2.0 that is fed by an outer join keeps names as numbers, and breaks off at the first row that nothing
# was joined to; all that reads the file has to begin anew then. Where it sees a UNION below it, it does not try. The
# second half gives nothing, which no statistics tell beforehand, so the plan keeps it: it costs a look at each spec.
_SPECS = "(SELECT * FROM specs UNION ALL SELECT * FROM specs WHERE length(command) < 0)"

# Measured on 1M jobs of 3M events, 2 cores: one `max(seq)` a job and a join back to that row take 0.20 s, a `max_by`
# over each of six columns 0.37 s. What is only a number stays an aggregate, and what hangs on one stays out of the
# joins' conditions: aggregates that nobody asks for are not computed, joins always are.
_JOBS = f"""
    CREATE OR REPLACE VIEW jobs AS
    WITH fold AS (
        SELECT job,
               max(seq) AS seq,
               max_by(worker, seq) AS worker,
               max_by(CASE event WHEN 'claimed' THEN coalesce(started_us, happened_us) END, seq) AS claimed_us,
               max_by(CASE WHEN event <> 'claimed' THEN started_us END, seq) AS ran_us,
               -- Since when it might have run: a wait counts from here.
               max_by(CASE event WHEN 'dispatched' THEN coalesce(due_us, happened_us)
                                 WHEN 'retrying' THEN due_us
                                 WHEN 'retried' THEN happened_us
                                 WHEN 'interrupted' THEN CASE WHEN crashes > 0 THEN happened_us END END, seq)
                   AS ready_us,
               max(CASE WHEN event = 'claimed' THEN seq END) AS claim,
               max(CASE WHEN event IN ('succeeded', 'retried') THEN seq ELSE 0 END) AS cleared
        FROM ledger WHERE {_MOVES} GROUP BY job
    )
    SELECT d.job_id,
           s.command,
           s.queue,
           {_STATE_OF} AS state,
           CASE WHEN l.event = 'retrying' AND l.due_us > epoch_us(now()) THEN 'retrying'::{_STATUS}
                WHEN l.event = 'dispatched' AND l.due_us > epoch_us(now()) THEN 'scheduled'::{_STATUS}
                ELSE {_STATUS_OF} END AS status,
           coalesce(l.attempt, 0) AS attempt,
           -- A worker's own allowance is settled by its claim, and again by the next one's.
           CASE WHEN l.attempt > 0 THEN l.max_attempts ELSE coalesce(s.tries, 1) END AS max_attempts,
           s.priority,
           make_timestamptz(d.happened_us) AS dispatched_at,
           make_timestamptz(CASE WHEN l.event = 'retrying' THEN l.due_us ELSE coalesce(d.due_us, d.happened_us) END)
               AS scheduled_at,
           make_timestamptz({_BEGAN}) AS started_at,
           CASE WHEN {_HAS_ENDED} THEN make_timestamptz(l.happened_us) END AS finished_at,
           CASE WHEN {_IS_RUNNING} OR {_HAS_RUN} THEN {_seconds(f"{_BEGAN} - f.ready_us")} END AS wait_seconds,
           CASE WHEN {_HAS_RUN} THEN {_seconds(f"l.happened_us - {_BEGAN}")} END AS run_seconds,
           w.worker_id AS worker,
           CASE WHEN e.seq > f.cleared THEN e.error END AS error,
           l.cause,
           CASE WHEN e.seq > f.cleared THEN nullif(e.traceback, '') END AS traceback,
           coalesce(CASE WHEN e.seq > f.cleared THEN e.fingerprint END, CASE l.event WHEN 'failed' THEN l.cause END)
               AS fingerprint,
           coalesce(l.crashes, 0) AS crashes,
           d.data AS arguments,
           d.metadata,
           CASE WHEN l.event = 'succeeded' THEN l.data END AS result,
           CASE WHEN p.seq > f.claim THEN p.progress END AS progress,
           s.origin,
           s.code,
           s.timeout,
           d.batch_id,
           d.row_label,
           d.job AS number
    FROM (SELECT job, job_id, spec, happened_us, due_us, metadata, data, batch_id, row_label
          FROM ledger WHERE event = 'dispatched') d
    JOIN fold f ON f.job = d.job
    JOIN ledger l ON l.seq = f.seq
    JOIN {_SPECS} s ON s.spec = d.spec
    LEFT JOIN workers w ON w.worker = f.worker
    LEFT JOIN (SELECT job, max(seq) AS seq, max_by(error, seq) AS error,
                      max_by(coalesce(traceback, ''), seq) AS traceback,
                      max_by({FINGERPRINT}, seq) AS fingerprint
               FROM ledger WHERE error IS NOT NULL AND {_MOVES} GROUP BY job) e ON e.job = d.job
    LEFT JOIN (SELECT job, max(seq) AS seq, max_by(data, seq) AS progress
               FROM ledger WHERE event = 'progress' GROUP BY job) p ON p.job = d.job
    """

# An attempt that was claimed ahead and given back never began; one that ended, runs, or took its worker along did.
_ATTEMPT_BEGAN = """(CASE WHEN x.started_us IS NOT NULL THEN x.started_us
                 WHEN x.event IS NULL OR x.event IN ('succeeded', 'failed', 'retrying')
                      OR coalesce(x.crashes, 0) > coalesce(c.crashes, 0) THEN c.happened_us END)"""

_ATTEMPTS = f"""
    CREATE OR REPLACE VIEW attempts AS
    SELECT d.job_id,
           s.command,
           s.queue,
           c.attempt,
           c.max_attempts,
           CASE WHEN x.event IS NULL THEN 'running'::{_OUTCOME} ELSE {_OUTCOME_OF} END AS outcome,
           make_timestamptz(c.happened_us) AS claimed_at,
           make_timestamptz({_ATTEMPT_BEGAN}) AS started_at,
           make_timestamptz(x.happened_us) AS finished_at,
           {_seconds(f"x.happened_us - {_ATTEMPT_BEGAN}")} AS run_seconds,
           w.worker_id AS worker,
           x.error,
           x.cause,
           x.traceback,
           x.fingerprint,
           (u.data ->> '$.peak_memory')::BIGINT AS peak_memory,
           (u.data ->> '$.cpu_seconds')::DOUBLE AS cpu_seconds,
           u.data ->> '$.exit' AS exit,
           c.fence,
           c.job AS number
    FROM (SELECT job, fence, attempt, max_attempts, worker, crashes, happened_us FROM ledger WHERE event = 'claimed') c
    JOIN (SELECT job, job_id, spec FROM ledger WHERE event = 'dispatched') d ON d.job = c.job
    JOIN {_SPECS} s ON s.spec = d.spec
    -- By job as well, so that whoever asks for the attempts of a few jobs has no other job's ends read.
    LEFT JOIN (SELECT job, fence, event, happened_us, started_us, crashes, cause, error, traceback,
                      CASE WHEN error IS NOT NULL THEN {FINGERPRINT} END AS fingerprint
               FROM ledger WHERE event IN ({_CLOSING}) AND fence IS NOT NULL) x ON x.fence = c.fence AND x.job = c.job
    LEFT JOIN (SELECT job, fence, data FROM ledger WHERE event = 'usage') u ON u.fence = c.fence AND u.job = c.job
    LEFT JOIN workers w ON w.worker = c.worker
    """

_EVENTS = f"""
    CREATE OR REPLACE VIEW events AS
    SELECT l.seq,
           make_timestamptz(l.happened_us) AS happened_at,
           l.event,
           d.job_id,
           s.command,
           s.queue,
           {_STATE_OF} AS state,
           coalesce(l.attempt, 0) AS attempt,
           w.worker_id AS worker,
           make_timestamptz(l.due_us) AS due_at,
           l.cause,
           l.error,
           CASE WHEN l.event IN ('progress', 'output', 'usage') THEN l.data END AS data,
           l.fence,
           l.job AS number
    FROM ledger l
    JOIN (SELECT job, job_id, spec FROM ledger WHERE event = 'dispatched') d ON d.job = l.job
    JOIN {_SPECS} s ON s.spec = d.spec
    LEFT JOIN workers w ON w.worker = l.worker
    WHERE l.event <> 'log'
    """

_LOGS = """
    CREATE OR REPLACE VIEW logs AS
    SELECT l.seq, d.job_id, l.attempt, make_timestamptz(l.happened_us) AS written_at, l.cause AS stream,
           l.data AS text, l.fence
    FROM ledger l JOIN (SELECT job, job_id FROM ledger WHERE event = 'dispatched') d ON d.job = l.job
    WHERE l.event = 'log'
    """

_OUTPUTS = """
    CREATE OR REPLACE VIEW outputs AS
    SELECT l.seq, d.job_id, l.attempt, make_timestamptz(l.happened_us) AS shown_at, l.data AS mimebundle, l.fence
    FROM ledger l JOIN (SELECT job, job_id FROM ledger WHERE event = 'dispatched') d ON d.job = l.job
    WHERE l.event = 'output'
    """

TABLE_NAMES = tuple(statement.split()[2] for statement in TABLES)
VIEWS: tuple[str, ...] = (_JOBS, _ATTEMPTS, _EVENTS, _LOGS, _OUTPUTS)
