-- A store of schema version 1 with two messages, as it was written by the program of that time. Never edited.
PRAGMA journal_mode = WAL;
CREATE TABLE keys (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, last INTEGER NOT NULL, stored INTEGER NOT NULL,
    messages INTEGER NOT NULL, payload_bytes INTEGER NOT NULL, trimmed INTEGER NOT NULL,
    trimmed_until INTEGER NOT NULL, ids_until INTEGER NOT NULL
) STRICT;
CREATE INDEX keys_by_mark ON keys (trimmed_until) WHERE trimmed_until > 0;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY, key_id INTEGER NOT NULL, mid INTEGER NOT NULL,
    expires_at INTEGER NOT NULL, payload BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX messages_by_key ON messages (key_id, mid);
CREATE INDEX messages_by_expiry ON messages (expires_at);
CREATE TABLE ids (
    push_id TEXT NOT NULL, key_id INTEGER NOT NULL, mid INTEGER NOT NULL, digest BLOB NOT NULL,
    until INTEGER NOT NULL, PRIMARY KEY (push_id, key_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX ids_by_end ON ids (until);
CREATE TABLE acknowledged (
    key TEXT NOT NULL, device TEXT NOT NULL, mid INTEGER NOT NULL, seen_day INTEGER NOT NULL,
    PRIMARY KEY (key, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX acknowledged_by_day ON acknowledged (seen_day);
CREATE TABLE store (floor INTEGER NOT NULL) STRICT;
INSERT INTO store VALUES (0);
INSERT INTO keys VALUES (1, 'bob', 17900000000000160, 17900000000000160, 2, 6, 0, 0, 9999999999);
INSERT INTO messages VALUES (1, 1, 17900000000000080, 9999999999, x'5b315d');
INSERT INTO messages VALUES (2, 1, 17900000000000160, 9999999999, x'5b325d');
INSERT INTO acknowledged VALUES ('bob', 'phone', 17900000000000080, 99999);
PRAGMA application_id = 0x454E434B;
PRAGMA user_version = 1;
