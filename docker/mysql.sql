-- The tables of the MySQL store. `encke message --init-schema` makes them, and brings older
-- ones up to date; this file is for those who would rather do it by hand, in an empty database.

CREATE TABLE IF NOT EXISTS private_msg (
    id    BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    skey  VARBINARY(512) NOT NULL,
    mid   BIGINT UNSIGNED NOT NULL,
    ttl   BIGINT NOT NULL COMMENT 'unix second at which it expires',
    msg   LONGBLOB NOT NULL COMMENT 'JSON',
    ctime DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
    mtime DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    PRIMARY KEY (id),
    UNIQUE KEY ux_private_msg_1 (skey, mid),
    KEY ix_private_msg_1 (ttl)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE IF NOT EXISTS encke_keys (
    skey          VARBINARY(512) NOT NULL,
    last          BIGINT UNSIGNED NOT NULL COMMENT 'highest mid settled',
    stored        BIGINT UNSIGNED NOT NULL COMMENT 'mid of the newest message stored, 0 = none',
    messages      BIGINT NOT NULL COMMENT 'rows in private_msg, expired ones that are still there included',
    payload_bytes BIGINT NOT NULL,
    trimmed       BIGINT UNSIGNED NOT NULL COMMENT 'highest mid removed by the limit, 0 = none',
    trimmed_until BIGINT NOT NULL COMMENT 'unix second at which the last removed one would have expired',
    ids_until     BIGINT NOT NULL COMMENT 'second of the store clock at which its last id is forgotten',
    PRIMARY KEY (skey),
    KEY encke_keys_by_mark (trimmed_until)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE IF NOT EXISTS encke_ids (
    push_id VARBINARY(128) NOT NULL,
    skey    VARBINARY(512) NOT NULL,
    mid     BIGINT UNSIGNED NOT NULL,
    digest  BINARY(16) NOT NULL COMMENT 'BLAKE2b of the payload',
    until_s BIGINT NOT NULL COMMENT 'second of the store clock',
    PRIMARY KEY (push_id, skey),
    KEY encke_ids_by_end (until_s)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE IF NOT EXISTS encke_devices (
    skey     VARBINARY(512) NOT NULL,
    device   VARBINARY(64) NOT NULL,
    mid      BIGINT UNSIGNED NOT NULL COMMENT 'acknowledged',
    seen_day BIGINT NOT NULL COMMENT 'unix day',
    PRIMARY KEY (skey, device),
    KEY encke_devices_by_day (seen_day)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE IF NOT EXISTS encke_incarnations (
    name      VARBINARY(64) NOT NULL COMMENT 'registration of a comet node',
    is_fenced TINYINT NOT NULL,
    until_s   BIGINT NOT NULL COMMENT 'second of the store clock at which it is forgotten',
    PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE IF NOT EXISTS encke_store (
    id    TINYINT NOT NULL,
    clock BIGINT UNSIGNED NOT NULL COMMENT 'the store clock was at least this',
    floor BIGINT UNSIGNED NOT NULL COMMENT 'highest mid of keys that were forgotten',
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

INSERT IGNORE INTO encke_store (id, clock, floor) VALUES (1, 0, 0);

CREATE TABLE IF NOT EXISTS encke_schema (
    id      TINYINT NOT NULL,
    version INT NOT NULL,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

REPLACE INTO encke_schema (id, version) VALUES (1, 1);
