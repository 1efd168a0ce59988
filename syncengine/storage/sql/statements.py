"""The statements that both stores run."""

from importlib.resources import files

SCHEMA = files("syncengine.storage.sql").joinpath("schema.sql").read_text()

APPLICATION_ID = 0x53796E63  # "Sync", in the file's header: whose file this is
FORMAT = 8  # PRAGMA user_version

# What makes of a file the next format's, by the format that it has.
MIGRATIONS = {
    1: (
        "CREATE TABLE _sync_table (collection TEXT PRIMARY KEY, columns TEXT NOT NULL, "
        "filled INTEGER NOT NULL) WITHOUT ROWID",
    ),
    2: (
        "CREATE TABLE _sync_past (ns INTEGER NOT NULL, name TEXT NOT NULL, "
        "position INTEGER NOT NULL, PRIMARY KEY (ns, name, position)) WITHOUT ROWID",
        "CREATE TABLE _sync_seen (ns INTEGER NOT NULL, actor BLOB NOT NULL, "
        "seq INTEGER NOT NULL, position INTEGER NOT NULL, deps BLOB NOT NULL, "
        "PRIMARY KEY (ns, actor, seq, position)) WITHOUT ROWID",
    ),
    3: (
        "CREATE TABLE _sync_branch (ns INTEGER NOT NULL, name TEXT NOT NULL, "
        "actor BLOB NOT NULL, base BLOB NOT NULL, PRIMARY KEY (ns, name)) "
        "WITHOUT ROWID",
        "CREATE TABLE _sync_branch_change (ns INTEGER NOT NULL, name TEXT NOT NULL, "
        "seq INTEGER NOT NULL, change BLOB NOT NULL, PRIMARY KEY (ns, name, seq)) "
        "WITHOUT ROWID",
    ),
    4: (
        "ALTER TABLE _sync_log ADD COLUMN arrived INTEGER",
        "DELETE FROM _sync_table",  # made anew by who has the classes
    ),
    5: (
        "CREATE TABLE _sync_versions (ns INTEGER NOT NULL, id BLOB NOT NULL, "
        "entity TEXT NOT NULL, detected_at INTEGER NOT NULL, versions TEXT NOT NULL, "
        "resolved_at INTEGER, resolution TEXT, PRIMARY KEY (ns, id)) WITHOUT ROWID",
    ),
    6: (
        "CREATE TABLE _sync_ballot (ns INTEGER PRIMARY KEY, mode BLOB NOT NULL, "
        "number INTEGER NOT NULL, voted_for BLOB, vote BLOB, shown INTEGER NOT NULL, "
        "may_vote INTEGER NOT NULL, forgot_at INTEGER, fence INTEGER NOT NULL)",
        "CREATE TABLE _sync_rescue (ns INTEGER NOT NULL, actor BLOB NOT NULL, "
        "seq INTEGER NOT NULL, decided_at INTEGER NOT NULL, how TEXT NOT NULL, "
        "PRIMARY KEY (ns, actor, seq)) WITHOUT ROWID",
    ),
    7: (
        "CREATE TABLE _sync_moved (ns INTEGER NOT NULL, hub BLOB NOT NULL, "
        "address TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (ns, hub)) "
        "WITHOUT ROWID",
    ),
}

# A commit that was acknowledged survives power loss only with FULL: measured.
PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA busy_timeout=5000",
)

PUT_META = "INSERT OR REPLACE INTO _sync_meta VALUES (?, ?)"
ADD_NAMESPACE = (
    "INSERT INTO _sync_namespace (ns, id, name, position, address) "
    "VALUES (?, ?, ?, 0, ?)"
)
SET_NAMESPACE = (
    "UPDATE _sync_namespace SET position = ?, actor = ?, next_seq = ?, hlc = ?, "
    "grant_id = ? WHERE ns = ?"
)
SET_POSITION = "UPDATE _sync_namespace SET position = ? WHERE ns = ?"
NAME_NAMESPACE = "UPDATE _sync_namespace SET name = ?, address = ? WHERE ns = ?"
REMEMBER_ADDRESS = (
    "UPDATE _sync_namespace SET address = ? WHERE ns = ? AND address IS NULL"
)
APPEND = "INSERT INTO _sync_log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
ARRIVED = "SELECT arrived FROM _sync_log WHERE ns = ? AND id = ?"
CHAIN_AT = "SELECT chain FROM _sync_log WHERE ns = ? AND position = ?"
DROP_HEAD = "DELETE FROM _sync_head WHERE ns = ? AND actor = ? AND id = ?"
PUT_HEAD = "INSERT OR REPLACE INTO _sync_head VALUES (?, ?, ?, ?)"
PUT_OUTBOX = "INSERT OR REPLACE INTO _sync_outbox VALUES (?, ?, ?)"
DROP_OUTBOX = "DELETE FROM _sync_outbox WHERE ns = ? AND seq BETWEEN ? AND ?"
PUT_ACTOR = "INSERT OR REPLACE INTO _sync_actor VALUES (?, ?, ?, ?, ?, ?)"
PUT_PEER = "INSERT OR REPLACE INTO _sync_peer VALUES (?, ?, ?, ?, ?, ?, ?)"
PUT_MOVED = "INSERT OR REPLACE INTO _sync_moved VALUES (?, ?, ?, ?)"
DROP_MOVED = "DELETE FROM _sync_moved WHERE ns = ? AND hub = ?"
PUT_VOID = "INSERT OR REPLACE INTO _sync_void VALUES (?, ?, ?, ?, ?)"
PUT_OPERATION = "INSERT OR REPLACE INTO _sync_operation VALUES (?, ?, ?, ?)"
PUT_ORIGIN = "INSERT OR IGNORE INTO _sync_origin VALUES (?, ?, ?, ?)"
# Not REPLACE, which deletes first: an update leaves the key and its index as they are.
PUT_DOCUMENT = (
    "INSERT INTO _sync_document VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (document) DO UPDATE SET touches = excluded.touches, "
    "visible = excluded.visible, upgrade = excluded.upgrade, "
    "updated_ms = excluded.updated_ms, digest = excluded.digest"
)
DIGESTS = (
    "SELECT document, collection, id, upgrade, digest FROM _sync_document "
    "WHERE ns = ? AND (collection, id) >= (?, ?) AND (visible OR upgrade) "
    "ORDER BY collection, id LIMIT ?"
)
SET_DIGEST = "UPDATE _sync_document SET digest = ? WHERE document = ?"
PUT_CELL = (
    "INSERT INTO _sync_cell VALUES (?, ?, ?, ?) "
    "ON CONFLICT (document, container, key) DO UPDATE SET state = excluded.state"
)
DROP_CELL = "DELETE FROM _sync_cell WHERE document = ? AND container = ? AND key = ?"
PUT_PAST = "INSERT OR IGNORE INTO _sync_past VALUES (?, ?, ?)"
DROP_PAST = "DELETE FROM _sync_past WHERE ns = ? AND name = ''"
PUT_SEEN = "INSERT OR IGNORE INTO _sync_seen VALUES (?, ?, ?, ?, ?)"
PUT_BRANCH = "INSERT OR REPLACE INTO _sync_branch VALUES (?, ?, ?, ?)"
PUT_BRANCH_CHANGE = "INSERT INTO _sync_branch_change VALUES (?, ?, ?, ?)"
DROP_BRANCH = (
    "DELETE FROM _sync_branch WHERE ns = ? AND name = ?",
    "DELETE FROM _sync_branch_change WHERE ns = ? AND name = ?",
)
PUT_TABLE = "INSERT OR REPLACE INTO _sync_table VALUES (?, ?, ?)"
ALL_CELLS = "SELECT container, key, state FROM _sync_cell WHERE document = ?"
PAST_ENDS = (
    "SELECT l.actor, max(l.last_seq) FROM _sync_past p "
    "JOIN _sync_log l ON l.ns = p.ns AND l.position = p.position "
    "WHERE p.ns = ? AND p.name = ? GROUP BY l.actor"
)
CONFLICTS = (
    "SELECT c.path, c.actor, c.hlc, c.value, c.winner FROM _sync_conflict c "
    "JOIN _sync_document d ON d.document = c.document "
    "WHERE d.ns = ? AND d.collection = ? AND d.id = ? ORDER BY c.hlc, c.actor, c.seq"
)
LATEST_CONFLICTS = (
    "SELECT c.path, c.actor, c.hlc, c.value, c.winner FROM _sync_conflict c "
    "JOIN _sync_document d ON d.document = c.document "
    "WHERE d.ns = ? ORDER BY c.hlc DESC, c.actor, c.seq LIMIT ?"
)
PUT_VERSIONS = "INSERT OR IGNORE INTO _sync_versions VALUES (?, ?, ?, ?, ?, NULL, NULL)"
RESOLVE_VERSIONS = (
    "UPDATE _sync_versions SET resolved_at = ?, resolution = ? "
    "WHERE ns = ? AND entity = ? AND resolved_at IS NULL AND id != ?"
)
SETTLE_VERSIONS = (
    "UPDATE _sync_versions SET resolved_at = ?, resolution = ? WHERE ns = ? AND id = ?"
)
BALLOT = (
    "SELECT mode, number, voted_for, vote, shown, may_vote, forgot_at "
    "FROM _sync_ballot "
    "WHERE ns = ?"
)
# A number never goes back, whatever whoever wakes up believes: the fence behind it, in
# the same commit, sees the later one.
PUT_BALLOT = (
    "INSERT INTO _sync_ballot VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0) "
    "ON CONFLICT (ns) DO UPDATE SET mode = excluded.mode, number = excluded.number, "
    "voted_for = excluded.voted_for, vote = excluded.vote, shown = excluded.shown, "
    "may_vote = excluded.may_vote, forgot_at = excluded.forgot_at "
    "WHERE excluded.mode != mode OR excluded.number >= number"
)
# Where the term is another by now there is nothing to insert, and the commit fails.
FENCE = (
    "INSERT INTO _sync_ballot VALUES (?, x'', 0, NULL, NULL, 0, 0, NULL, "
    "(SELECT fence + 1 FROM _sync_ballot WHERE ns = ? AND number = ?)) "
    "ON CONFLICT (ns) DO UPDATE SET fence = excluded.fence"
)
PUT_RESCUE = "INSERT OR REPLACE INTO _sync_rescue VALUES (?, ?, ?, ?, ?)"
PUT_CONFLICT = "INSERT OR REPLACE INTO _sync_conflict VALUES (?, ?, ?, ?, ?, ?, ?)"

# Everything that is derived from the log of one namespace, before a rebuild.
CLEAR_DERIVED = (
    "DELETE FROM _sync_cell WHERE document IN "
    "(SELECT document FROM _sync_document WHERE ns = ?)",
    "DELETE FROM _sync_conflict WHERE document IN "
    "(SELECT document FROM _sync_document WHERE ns = ?)",
    "DELETE FROM _sync_document WHERE ns = ?",
    "DELETE FROM _sync_actor WHERE ns = ?",
    "DELETE FROM _sync_void WHERE ns = ?",
    "DELETE FROM _sync_origin WHERE ns = ?",
)
CLEAR_LOG = (
    "DELETE FROM _sync_log WHERE ns = ?",
    "DELETE FROM _sync_head WHERE ns = ?",
    "DELETE FROM _sync_peer WHERE ns = ?",
    "DELETE FROM _sync_past WHERE ns = ?",
    "DELETE FROM _sync_seen WHERE ns = ?",
)
# All of a namespace that a replica has, besides its typed tables.
CLEAR_NAMESPACE = (
    *CLEAR_DERIVED,
    *CLEAR_LOG,
    *(
        f"DELETE FROM _sync_{table} WHERE ns = ?"
        for table in (
            *("outbox", "operation", "moved", "branch", "branch_change", "versions"),
            *("ballot", "rescue", "namespace"),
        )
    ),
)
OWN_AFTER = "SELECT count(*) FROM _sync_log WHERE ns = ? AND actor = ? AND position > ?"

# All that a hub has of a namespace.
CLEAR_RELAY = (
    *CLEAR_LOG,
    "DELETE FROM _sync_moved WHERE ns = ?",
    "DELETE FROM _sync_namespace WHERE ns = ?",
)
RELAYS = (
    "SELECT n.ns, n.id, m.address, m.at FROM _sync_namespace n "
    "LEFT JOIN _sync_moved m ON m.ns = n.ns AND m.hub = ?"
)
LOG_BYTES = (
    "SELECT coalesce(sum(length(body)), 0) FROM _sync_log "
    "WHERE ns = ? AND position > ? AND position <= ?"
)
CLEAR_OUTBOX = "DELETE FROM _sync_outbox WHERE ns = ?"

LOG_AFTER = (
    "SELECT position, kind, id, head, body, signature FROM _sync_log "
    "WHERE ns = ? AND position > ? ORDER BY position LIMIT ?"
)
BATCH_AT = (
    "SELECT id, last_seq, first_seq FROM _sync_log WHERE ns = ? AND actor = ? "
    "AND kind = 0 AND first_seq <= ? ORDER BY first_seq DESC LIMIT ?"
)
BATCHES_OF = (
    "SELECT position, kind, id, head, body, signature FROM _sync_log "
    "WHERE ns = ? AND actor = ? AND kind = 0 AND first_seq >= ? "
    "ORDER BY first_seq, position LIMIT ?"
)
# Of an actor that did not fork the newest that begins there is the only one that may
# hold it; of one that did, all are looked at.
LAST_BATCH_TO = (
    "SELECT position, kind, id, head, body, signature FROM _sync_log "
    "WHERE ns = ? AND actor = ? AND kind = 0 AND first_seq <= ? "
    "ORDER BY first_seq DESC LIMIT 1"
)
BATCHES_AT = (
    "SELECT position, kind, id, head, body, signature FROM _sync_log "
    "WHERE ns = ?1 AND actor = ?2 AND kind = 0 AND first_seq <= ?3 AND last_seq >= ?3 "
    "ORDER BY first_seq DESC"
)
HEADER_OF = "SELECT head FROM _sync_log WHERE ns = ? AND id = ? AND kind = 0"
HEADER_BEGINNING = (
    "SELECT head FROM _sync_log WHERE ns = ? AND id BETWEEN ? AND ? AND kind = 0"
)
POSITION_OF_ROW = "SELECT position FROM _sync_log WHERE ns = ? AND id = ?"
HAS_ROW = "SELECT 1 FROM _sync_log WHERE ns = ? AND id = ?"
CELLS = (
    "SELECT key, state FROM _sync_cell WHERE document = ? AND container = ? "
    "AND key >= ? AND key < ? ORDER BY key"
)
