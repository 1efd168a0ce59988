-- The file of a replica or a hub. `_sync_log` is the only history; everything about
-- documents below it is derived from it and can be rebuilt.

CREATE TABLE _sync_meta (
    key   TEXT PRIMARY KEY,
    value ANY
) WITHOUT ROWID;

CREATE TABLE _sync_namespace (
    ns       INTEGER PRIMARY KEY,
    id       BLOB NOT NULL UNIQUE,
    name     TEXT UNIQUE,            -- how this replica's user calls it
    position INTEGER NOT NULL,       -- of the newest row of its log
    actor    BLOB,                   -- the actor that writes here, if one does
    next_seq INTEGER NOT NULL DEFAULT 1,
    hlc      INTEGER NOT NULL DEFAULT 0,  -- high-water mark of own and seen stamps
    address  TEXT,                   -- the hub that an invite named
    grant_id BLOB                    -- what own batches are written under
);

-- One row for each membership entry and each batch, in the order in which they came.
CREATE TABLE _sync_log (
    ns        INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    id        BLOB NOT NULL,
    kind      INTEGER NOT NULL,      -- 0: a batch, else the kind of the entry
    actor     BLOB,                  -- of a batch
    first_seq INTEGER,
    last_seq  INTEGER,
    head      BLOB,                  -- header bytes of a batch
    body      BLOB NOT NULL,         -- payload of a batch, or body of an entry
    signature BLOB NOT NULL,         -- empty inside a run: a later one binds it
    chain     BLOB NOT NULL,         -- of all ids up to here: which log this is
    arrived   INTEGER,               -- when, by this machine's clock (ms)
    PRIMARY KEY (ns, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX _sync_log_id ON _sync_log (ns, id);
CREATE INDEX _sync_log_actor ON _sync_log (ns, actor, first_seq) WHERE kind = 0;

-- The last batches of each actor (one, or one for each branch of a forked actor).
CREATE TABLE _sync_head (
    ns    INTEGER NOT NULL,
    actor BLOB NOT NULL,
    id    BLOB NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (ns, actor, id)
) WITHOUT ROWID;

-- Own changes that no batch holds yet: the outbox.
CREATE TABLE _sync_outbox (
    ns     INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    change BLOB NOT NULL,
    PRIMARY KEY (ns, seq)
) WITHOUT ROWID;

-- What is applied: per actor the last seq, its stamp, and what it had seen.
CREATE TABLE _sync_actor (
    ns      INTEGER NOT NULL,
    actor   BLOB NOT NULL,
    applied INTEGER NOT NULL,
    hlc     INTEGER NOT NULL,
    seen    BLOB NOT NULL,
    own     BLOB,                    -- the last batch that this replica sealed under it
    PRIMARY KEY (ns, actor)
) WITHOUT ROWID;

-- What each peer has: `cursor` is ours into its log, `acked` is its into ours.
CREATE TABLE _sync_peer (
    ns      INTEGER NOT NULL,
    peer    BLOB NOT NULL,
    lineage BLOB,
    cursor  INTEGER NOT NULL,
    chain   BLOB NOT NULL,           -- of its log at our cursor, as it told
    acked   INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    PRIMARY KEY (ns, peer)
) WITHOUT ROWID;

-- Who was told of another hub that keeps a namespace now: at a replica by which hub; at
-- a hub of a fleet under its own id, since it gave the namespace away.
CREATE TABLE _sync_moved (
    ns      INTEGER NOT NULL,
    hub     BLOB NOT NULL,
    address TEXT NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (ns, hub)
) WITHOUT ROWID;

-- Changes without effect, and why. Derived.
CREATE TABLE _sync_void (
    ns     INTEGER NOT NULL,
    actor  BLOB NOT NULL,
    seq    INTEGER NOT NULL,
    batch  BLOB NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (ns, actor, seq, batch)
) WITHOUT ROWID;

-- Client operation ids of own transactions: a retry happens once.
CREATE TABLE _sync_operation (
    ns        INTEGER NOT NULL,
    operation TEXT NOT NULL,
    actor     BLOB NOT NULL,
    seq       INTEGER NOT NULL,
    PRIMARY KEY (ns, operation)
) WITHOUT ROWID;

-- Changes written again: of those that do the same, the least author's counts.
CREATE TABLE _sync_origin (
    ns     INTEGER NOT NULL,
    origin BLOB NOT NULL,            -- of the first writing: actor, seq, n, digest
    actor  BLOB NOT NULL,
    seq    INTEGER NOT NULL,
    PRIMARY KEY (ns, origin, actor, seq)
) WITHOUT ROWID;

CREATE TABLE _sync_document (
    document   INTEGER PRIMARY KEY,
    ns         INTEGER NOT NULL,
    collection TEXT NOT NULL,
    id         TEXT NOT NULL,
    touches    BLOB NOT NULL,
    visible    INTEGER NOT NULL,
    upgrade    INTEGER NOT NULL DEFAULT 0,  -- 1: written by a newer version
    updated_ms INTEGER NOT NULL,
    digest     BLOB,                 -- of the visible state; null: not computed yet
    UNIQUE (ns, collection, id)
);

CREATE TABLE _sync_cell (
    document  INTEGER NOT NULL,
    container BLOB NOT NULL,
    key       BLOB NOT NULL,
    state     BLOB NOT NULL,
    PRIMARY KEY (document, container, key)
) WITHOUT ROWID;

-- A journal of conflicts seen here; not part of any digest.
CREATE TABLE _sync_conflict (
    document INTEGER NOT NULL,
    path     TEXT NOT NULL,
    actor    BLOB NOT NULL,          -- who lost
    seq      INTEGER NOT NULL,
    hlc      INTEGER NOT NULL,
    value    BLOB NOT NULL,
    winner   BLOB NOT NULL,
    PRIMARY KEY (document, path, actor, seq)
) WITHOUT ROWID;

-- Typed collections that are kept as tables (_sync_table_<collection>) and shown as views.
CREATE TABLE _sync_table (
    collection TEXT PRIMARY KEY,
    columns    TEXT NOT NULL,        -- [[name, type, default, is indexed]...], JSON
    filled     INTEGER NOT NULL      -- 1: it holds every document of the collection
) WITHOUT ROWID;

-- Which rows of the log touch which documents, and how what authors had seen grew: an
-- index of the log, continued when somebody asks for the past.
CREATE TABLE _sync_past (
    ns       INTEGER NOT NULL,
    name     TEXT NOT NULL,          -- a document; '': how far the log was looked at
    position INTEGER NOT NULL,
    PRIMARY KEY (ns, name, position)
) WITHOUT ROWID;

CREATE TABLE _sync_seen (
    ns       INTEGER NOT NULL,
    actor    BLOB NOT NULL,
    seq      INTEGER NOT NULL,
    position INTEGER NOT NULL,       -- of the batch: a forked actor has several
    deps     BLOB NOT NULL,
    PRIMARY KEY (ns, actor, seq, position)
) WITHOUT ROWID;

-- Branches: what this device keeps to itself until it is merged.
CREATE TABLE _sync_branch (
    ns    INTEGER NOT NULL,
    name  TEXT NOT NULL,
    actor BLOB NOT NULL,
    base  BLOB NOT NULL,             -- the version that it stands on
    PRIMARY KEY (ns, name)
) WITHOUT ROWID;

CREATE TABLE _sync_branch_change (
    ns     INTEGER NOT NULL,
    name   TEXT NOT NULL,
    seq    INTEGER NOT NULL,
    change BLOB NOT NULL,
    PRIMARY KEY (ns, name, seq)
) WITHOUT ROWID;

-- Versions of an entity that were written at once (multi_master.py), one row a conflict.
CREATE TABLE _sync_versions (
    ns          INTEGER NOT NULL,
    id          BLOB NOT NULL,       -- of the versions: the same on every master
    entity      TEXT NOT NULL,
    detected_at INTEGER NOT NULL,    -- ms
    versions    TEXT NOT NULL,       -- JSON
    resolved_at INTEGER,
    resolution  TEXT,                -- how: lww, manual ...
    PRIMARY KEY (ns, id)
) WITHOUT ROWID;

-- How far this device has gone in electing leaders (replication/leadership.py).
CREATE TABLE _sync_ballot (
    ns        INTEGER PRIMARY KEY,
    mode      BLOB NOT NULL,         -- the entry that began the mode
    number    INTEGER NOT NULL,      -- the highest term heard of
    voted_for BLOB,                  -- in that term
    vote      BLOB,                  -- the hash of what was signed for him
    shown     INTEGER NOT NULL,      -- up to which index entries take effect
    may_vote  INTEGER NOT NULL,      -- 0: it has forgotten what it voted before
    forgot_at INTEGER,               -- the term of the leader that was heard since
    fence     INTEGER NOT NULL       -- counts a leader's commits; each checks the term
);

-- Void changes about which somebody has decided: written again, or dismissed.
CREATE TABLE _sync_rescue (
    ns         INTEGER NOT NULL,
    actor      BLOB NOT NULL,
    seq        INTEGER NOT NULL,
    decided_at INTEGER NOT NULL,     -- ms
    how        TEXT NOT NULL,
    PRIMARY KEY (ns, actor, seq)
) WITHOUT ROWID;
