-- All tables of dibs, version 2: the queues and the ledger are one. They may stand in a file of the user's own, so
-- their names begin with dibs_. The index that a reader keeps of RabbitMQ's ledger has the same ones.

-- One row: which form of this schema the file has. Every write transaction compares it.
CREATE TABLE dibs_meta (version INTEGER NOT NULL) STRICT;
INSERT INTO dibs_meta (version) VALUES (2);

-- Every queue that was ever named, so that an empty one is listed too.
CREATE TABLE dibs_queues (
    name   TEXT PRIMARY KEY,
    paused INTEGER NOT NULL DEFAULT 0   -- 1: nothing of it is started
) STRICT, WITHOUT ROWID;

-- Every job that is not over, or over and not forgotten yet.
CREATE TABLE dibs_jobs (
    seq           INTEGER PRIMARY KEY,  -- the place in the line; a retry or replay goes to the end
    id            TEXT NOT NULL UNIQUE,
    queue         TEXT NOT NULL,        -- with the namespace
    state         INTEGER NOT NULL,     -- 0 ready, 1 delayed, 2 running, 3 dead, 4 done, 5 cancelled
    priority      INTEGER NOT NULL,
    due           INTEGER,              -- ms since 1970, as are all times
    expires       INTEGER,
    receipt       INTEGER,              -- worker << 40 | number of its claim, while running; below 1 << 40: it is
                                        -- being moved to another broker, and was in state (receipt & 3) before
    returns       INTEGER NOT NULL DEFAULT 0,
    attempt       INTEGER NOT NULL,
    crashes       INTEGER NOT NULL,
    suspect       INTEGER NOT NULL,     -- 1: it runs alone
    enqueued      INTEGER,
    unknown_since INTEGER,
    keep          INTEGER NOT NULL,     -- ms for which it is remembered when it is done or cancelled
    private       INTEGER NOT NULL,     -- 1: body, result and error are shown to nobody
    started       INTEGER,              -- of the present or the last run
    ended         INTEGER,              -- when it was over: dead, done or cancelled
    worker        TEXT,                 -- host:pid, of the last run
    task          TEXT,
    content_type  TEXT,
    headers       TEXT,                 -- JSON; NULL for none
    properties    TEXT,                 -- JSON; NULL for none
    error         TEXT,                 -- what the last failure said
    reason        TEXT,                 -- the dead only
    death_error   TEXT,                 -- the dead only
    note          TEXT,                 -- why the result, or the body, is not kept
    result        BLOB,                 -- JSON
    body          BLOB NOT NULL         -- last, so that the other columns are read without it
) STRICT;

-- Each state has an index of its own, so that a claim costs the same whatever else there is. It names the state
-- although that is constant in it, else SQLite would read the row to see it. It ends with seq, the rowid, unnamed.
CREATE INDEX dibs_ready ON dibs_jobs (state, queue, priority DESC) WHERE state = 0;
CREATE INDEX dibs_delayed ON dibs_jobs (state, queue, due) WHERE state = 1;
CREATE INDEX dibs_running ON dibs_jobs (state, receipt) WHERE state = 2;
CREATE INDEX dibs_dead ON dibs_jobs (state, queue, ended) WHERE state = 3;
-- In the order in which they are to be forgotten.
CREATE INDEX dibs_over ON dibs_jobs (state, ended + keep) WHERE state >= 4;

-- Runs that are over and were not the last one: the last one stands in its job's row.
CREATE TABLE dibs_runs (
    job     TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    started INTEGER,
    ended   INTEGER,
    worker  TEXT,
    outcome TEXT NOT NULL,
    error   TEXT
) STRICT;
CREATE INDEX dibs_runs_of ON dibs_runs (job);

-- What jobs say of themselves, for those that do.
CREATE TABLE dibs_notes (
    job      TEXT PRIMARY KEY,
    progress TEXT,                      -- JSON
    log      TEXT                       -- JSON, a list of lines
) STRICT, WITHOUT ROWID;

-- What was recorded of each queue in each minute of the last hours. Outcomes are added by the batch.
CREATE TABLE dibs_minutes (
    minute    INTEGER NOT NULL,         -- its first ms
    queue     TEXT NOT NULL,            -- with the namespace
    done      INTEGER NOT NULL,
    retried   INTEGER NOT NULL,
    dead      INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    runs      INTEGER NOT NULL,         -- that ended
    ran       INTEGER NOT NULL,         -- ms that they took together
    waits     INTEGER NOT NULL,         -- first runs among them, from the time on that the job could begin
    waited    INTEGER NOT NULL,
    longest   INTEGER NOT NULL,
    depth     INTEGER,                  -- how many jobs waited, counted once a minute
    PRIMARY KEY (minute, queue)
) STRICT, WITHOUT ROWID;

-- Jobs that run and are to be cancelled. Empty nearly always.
CREATE TABLE dibs_cancels (
    job   TEXT PRIMARY KEY,
    asked INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Jobs that `dibs move` brought here and that may still stand where they came from. Empty nearly always.
CREATE TABLE dibs_moved (job TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

-- Every worker that was not seen dead yet. Ids are never given twice, so a receipt is never made twice.
CREATE TABLE dibs_workers (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    slot    INTEGER NOT NULL UNIQUE,    -- its word on the board of those who wait
    host    TEXT NOT NULL,
    pid     INTEGER NOT NULL,           -- for people; nothing is concluded from it
    boot    TEXT NOT NULL,              -- which run of the machine it belongs to
    started INTEGER NOT NULL,
    lock    TEXT NOT NULL,              -- device and inode of its lock file
    queues  TEXT NOT NULL               -- JSON, with the namespace
) STRICT;
