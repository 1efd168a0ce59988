"""Every bound of the system, each with its reason.

Relations between bounds are asserted below, at import.
"""

KIB = 1024
MIB = 1024 * KIB

# --- values and documents -------------------------------------------------------

# Keys are names, not content; 1 KiB keeps a row's key within one database page.
KEY_BYTES_MAX = 1 * KIB

# The part of a document's name that the application chooses.
DOCUMENT_ID_BYTES_MAX = 256

# A collection becomes a table name in SQL: short, and safe unquoted.
COLLECTION_BYTES_MAX = 63

# Deep enough for any document a person reads; shallow enough that a recursive
# walk never meets Python's own limit. Automerge and MongoDB: none and 100.
DEPTH_MAX = 32

# Elements of one text or list at the version of whoever inserts. A book has a million
# characters; without a bound, changes of legal size would fill the memory of everybody
# who may read them. Beyond it all of a change is void.
ELEMENTS_MAX = 16 * MIB

INT_MIN, INT_MAX = -(2**63), 2**63 - 1

# --- changes and batches --------------------------------------------------------

# One transaction. A change is never split, so it must fit in memory on the
# smallest device several times over.
CHANGE_BYTES_MAX = 8 * MIB

# Documents of one transaction, and so of one batch (which gathers more before it):
# whoever decodes the names holds 200 bytes for each.
CHANGE_DOCUMENTS_MAX = 65_536
PARTS_MAX = 2 * CHANGE_DOCUMENTS_MAX

# MessagePack items of one transaction (a field written is about five): what takes time
# and memory is not bytes but how many things they say. As many SETs take 0.4 s.
CHANGE_ITEMS_MAX = 524_288

# Operations of one seed: tried and applied in one go; insertions take 0.1 s.
SEED_OPERATIONS_MAX = 8_192

# A batch is cut at the first change boundary at or above this: about a thousand
# small changes to one signature, and a frame's worth of work to one await.
BATCH_BYTES_CUT = 256 * KIB

# The encoded batch: one change of full size plus what was gathered before it.
BATCH_BYTES_MAX = CHANGE_BYTES_MAX + BATCH_BYTES_CUT + 64 * KIB

# Likewise its items: each takes a byte, so what was gathered has no more than bytes.
BATCH_ITEMS_MAX = CHANGE_ITEMS_MAX + BATCH_BYTES_CUT

# Consecutive typing into one text within this becomes one change when sealed.
COALESCE_MS = 1000

# While a batch is in flight, later changes wait for its acknowledgement, but not
# longer than this: a human does not see 20 ms, and a group then holds many.
SEAL_DELAY_SECONDS = 0.020

# After a failed commit (a full disk), before the outbox is tried again.
STORE_RETRY_SECONDS = 1.0

# Members write dependencies and frontiers; actors of a namespace bound both.
ACTORS_MAX = 4096

# A membership entry: a grant with 64 scopes, or a fork proof.
ENTRY_BYTES_MAX = 8 * KIB

# A switch of the mode names what each actor had written; 64 bytes each.
MODE_BYTES_MAX = 64 * ACTORS_MAX + ENTRY_BYTES_MAX

# Voters of a namespace with a leader: each entry waits for a majority of them, and
# their votes stand in the entry that begins a term. Raft clusters have 3 to 7.
VOTERS_MAX = 15

# How far ahead of now a leader's change may be stamped and take effect: a leader whose
# clock is set to another time zone stops nobody; one that is set to another year does.
LEADER_AHEAD_MS_MAX = 24 * 3_600_000

# How far ahead of the highest term in the log somebody may speak of one: elections that
# fail take a number each, and whoever takes more shall not use up what a term may skip.
BALLOT_AHEAD_MAX = 2**31

# How far a term's number may be ahead of the one before: each failed election takes
# one, and nobody shall take the last there is.
TERM_STEP_MAX = 2**32
assert BALLOT_AHEAD_MAX < TERM_STEP_MAX, "whom one may hear of may be elected"

# How many heads of the membership log one entry names.
HEADS_MAX = 16

GRANT_DEPTH_MAX = 8
GRANT_SCOPES_MAX = 64

# Branches kept of an actor that equivocated: enough to prove and to reconcile.
FORK_BRANCHES_MAX = 8

# --- partitions -----------------------------------------------------------------

# How many a new pipeline or fleet has: enough for a dozen hubs, little enough to
# follow all. It stays what it was when the pipeline or the fleet was made.
PARTITIONS = 64
PARTITIONS_MAX = 4096

# Hubs of a fleet: each keeps a link to each other one, and their number is one byte of
# a placement.
FLEET_HUBS_MAX = 64
HUB_URL_BYTES_MAX = 256
HUB_WEIGHT_MAX = 1000

# Namespaces that are moved to one hub at once: each has a channel of the link there.
MOVES_AT_ONCE = 64

# How long until a namespace is offered again to a new home that refused it: others are
# moved meanwhile.
MOVE_REFUSED_SECONDS = 30.0

# How often moves under way are looked at, where nothing tells that they got further.
MOVES_LOOK_SECONDS = 0.1

# A namespace that is written to all the time is never quite copied: so many rows
# behind, members are sent on, and these follow within the same second.
MOVE_BEHIND_ROWS_MAX = 256

# How long a hub keeps its copy of what it gave away: an operator who lost the new
# home's disk notices within that.
MOVED_KEEP_SECONDS = 600.0

# Partitions whose load one notice tells: 16 bytes each.
LOADS_IN_NOTICE_MAX = 200
assert LOADS_IN_NOTICE_MAX * 20 <= 4 * KIB, "a notice has 4 KiB"

# Hubs to which a link is sent on, one after the other, before it waits longer and
# longer: hubs that know different placements send in circles.
MOVES_FOLLOWED_MAX = 4

# An entry that places all partitions: a byte for each, and the hubs.
PLACEMENT_BYTES_MAX = (
    PARTITIONS_MAX + FLEET_HUBS_MAX * (HUB_URL_BYTES_MAX + 64) + 8 * KIB
)

# --- clocks ---------------------------------------------------------------------

# A change stamped further ahead of now than this waits, stored, until its time
# comes: the most by which a wrong clock wins against an honest one.
CLOCK_AHEAD_MS_MAX = 60_000

# A device whose clock is off by more than this is told, and its stamps corrected: then
# others would have its changes wait.
CLOCK_OFF_MS = CLOCK_AHEAD_MS_MAX

# How often to look whether a change from the future is due.
DUE_SECONDS_MAX = 10.0

# Operations of a change that was written again, up to which it is compared with what
# is there: each takes memory for a moment, and a deletion of any length a few bytes.
REPEATED_OPS_MAX = 100_000

# Documents that are named as diverged: after so many, one more says nothing new.
DIVERGENCES_MAX = 100

# --- audit ----------------------------------------------------------------------

# Quiet for so long, members compare what they show: not while somebody types.
AUDIT_SECONDS = 5.0

# Documents hashed before others get a turn of the event loop: about 5 ms.
AUDIT_SLICE = 100

# Digests heard and not looked at yet; later ones replace earlier ones.
STATES_WAITING_MAX = 16

# Digests of one member that are looked at while nothing new is applied: a search among
# a million documents takes 20 on each side; beyond, somebody wants us to be busy.
STATES_PER_AUTHOR_MAX = 256

# --- notices ----------------------------------------------------------------------

# What members say of leading: of 15 voters 32 bytes each, and a few names.
NOTICE_BYTES_MAX = 4 * KIB

# Notices whose names are remembered, so that each is handed on once: what may be under
# way on several paths, 40 bytes each.
NOTICES_KNOWN_MAX = 4096

# --- frames and sessions --------------------------------------------------------

# One sealed frame. Small enough that a ping never waits long behind one.
FRAME_BYTES_MAX = 256 * KIB

# What the WebSocket layer lets in: a frame and its sealing, with room.
WIRE_BYTES_MAX = FRAME_BYTES_MAX + 4 * KIB

# A reassembled message: a whole batch with its framing.
MESSAGE_BYTES_MAX = BATCH_BYTES_MAX + 64 * KIB

# Frames of one message: of the largest there is, and a few more.
PIECES_MAX = MESSAGE_BYTES_MAX // FRAME_BYTES_MAX + 8

# How much one data message gathers before it is sent.
DATA_BYTES_CUT = 256 * KIB

# zlib output a receiver is ready to make of one message, and its ratio: real
# payloads stay below 20, and a bomb has 1,000.
INFLATED_BYTES_MAX = 2 * MESSAGE_BYTES_MAX
COMPRESS_BYTES_MIN = 512

# Unacknowledged data to one peer: after that the sender only remembers a cursor.
WINDOW_BYTES = 4 * MIB
WINDOW_MESSAGES = 32

# The handshake: four messages of known shape.
HANDSHAKE_BYTES_MAX = 16 * KIB
HANDSHAKE_SECONDS_MAX = 5.0

# Silence after which a side asks, and after which it gives up.
PING_SECONDS = 20.0
SILENCE_SECONDS_MAX = 45.0

# How long a peer may take no frame at all, or leave a full window unacknowledged.
STALLED_SECONDS = 30.0

# How long one that is asked directly has to answer.
ANSWER_SECONDS = 5.0

# Frames under one key: far below any bound of AES-GCM.
REKEY_FRAMES = 2**20

NAMESPACES_PER_LINK_MAX = 1024

# Opens that fit the authentication message; more follow behind it.
OPENS_IN_AUTH_MAX = 16

# --- decoding -------------------------------------------------------------------

ARRAY_ITEMS_MAX = 65_536
FRONTIER_ITEMS_MAX = ACTORS_MAX

# --- hub ------------------------------------------------------------------------

CONNECTIONS_MAX = 2_000
CONNECTIONS_PER_DEVICE_MAX = 8
UNAUTHENTICATED_MAX = 64

# From one address: an office behind one router, and not a flood.
CONNECTIONS_PER_ADDRESS_MAX = 64
ADDRESS_UPGRADES_PER_SECOND = 10.0
ADDRESS_UPGRADES_BURST = 20.0

# Of all addresses together: about a quarter of a core goes into handshakes then.
UPGRADES_PER_SECOND = 200.0

# Wrong proofs of one address within ten minutes, after which it waits for fifteen.
AUTH_FAILURES_MAX = 10
AUTH_FAILURES_SECONDS = 600.0
AUTH_REFUSED_SECONDS = 900.0

# Addresses that are remembered, about 200 bytes each; the oldest are forgotten.
ADDRESSES_KEPT_MAX = 10_000

# --- dialling -------------------------------------------------------------------

# The first retry has the widest relative window: it is when all of a hub's
# clients come back at once.
BACKOFF_FIRST_SECONDS = 1.0
BACKOFF_SECONDS_MAX = 60.0

# A link that lived this long was a success: the back-off starts anew.
STABLE_SECONDS = 30.0

# --- transactions ---------------------------------------------------------------

# A body that holds its namespace longer than this is named in a warning.
BODY_SECONDS_MAX = 5.0

# Documents kept decoded in memory, per namespace.
CACHED_DOCUMENTS_MAX = 20_000

assert BATCH_BYTES_CUT < CHANGE_BYTES_MAX < BATCH_BYTES_MAX < MESSAGE_BYTES_MAX
assert BATCH_BYTES_CUT / 4 <= CHANGE_DOCUMENTS_MAX, "what is gathered adds no more"
assert DATA_BYTES_CUT < WINDOW_BYTES
assert ANSWER_SECONDS < PING_SECONDS
assert PING_SECONDS * 2 < SILENCE_SECONDS_MAX
assert FRAME_BYTES_MAX < WIRE_BYTES_MAX
