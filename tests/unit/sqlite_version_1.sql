-- All tables of dibs, version 1. They may stand in a file of the user's own, so their names begin with dibs_.

-- One row: which form of this schema the file has. Every write transaction compares it.
CREATE TABLE dibs_meta (version INTEGER NOT NULL) STRICT;
INSERT INTO dibs_meta (version) VALUES (1);

-- Every queue that was ever named, so that an empty one is listed too.
CREATE TABLE dibs_queues (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

-- Every job that is not over.
CREATE TABLE dibs_jobs (
    seq           INTEGER PRIMARY KEY,  -- the place in the line; a retry or replay goes to the end
    id            TEXT NOT NULL UNIQUE,
    queue         TEXT NOT NULL,        -- with the namespace
    state         INTEGER NOT NULL,     -- 0 ready, 1 delayed, 2 running, 3 dead
    priority      INTEGER NOT NULL,
    due           INTEGER,              -- ms since 1970, as are all times
    expires       INTEGER,
    receipt       INTEGER,              -- worker << 40 | number of its claim, while running
    returns       INTEGER NOT NULL DEFAULT 0,
    attempt       INTEGER NOT NULL,
    crashes       INTEGER NOT NULL,
    suspect       INTEGER NOT NULL,     -- 1: it runs alone
    enqueued      INTEGER,
    unknown_since INTEGER,
    task          TEXT,
    content_type  TEXT,
    headers       TEXT,                 -- JSON; NULL for none
    properties    TEXT,                 -- JSON; NULL for none
    error         TEXT,                 -- what the last failure said
    reason        TEXT,                 -- from here on: the dead only
    death_error   TEXT,
    died          INTEGER,
    worker        TEXT,
    body          BLOB NOT NULL         -- last, so that the other columns are read without it
) STRICT;

-- Each state has an index of its own, so that a claim costs the same whatever else there is. It names the state
-- although that is constant in it, else SQLite would read the row to see it. It ends with seq, the rowid, unnamed.
CREATE INDEX dibs_ready ON dibs_jobs (state, queue, priority DESC) WHERE state = 0;
CREATE INDEX dibs_delayed ON dibs_jobs (state, queue, due) WHERE state = 1;
CREATE INDEX dibs_running ON dibs_jobs (state, receipt) WHERE state = 2;
CREATE INDEX dibs_dead ON dibs_jobs (state, queue, died) WHERE state = 3;

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
