"""Settings of the embedded store, and the limits that the other stores share with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """The embedded store: one SQLite file in a directory of its own."""

    data_dir: str = field(
        default="encke-data",
        metadata={
            "doc": "Directory of the store: the database, its write-ahead log and a lock file. "
            "Made if it is missing. One process at a time.",
        },
    )
    durability: str = field(
        default="fsync",
        metadata={
            "doc": "What an answered push survives. fsync: a crash of the machine (the log is synced before "
            "every answer). os: a crash of the process only; after a power loss the last pushes that "
            "the operating system had not written yet, usually some seconds, are gone.",
            "choices": ("fsync", "os"),
        },
    )
    max_messages_per_key: int = field(
        default=1000,
        metadata={
            "doc": "Messages stored for one key; over it the oldest are removed, counted, and a resuming "
            "subscriber is told of the gap. Protects the disk from a key that nobody reads.",
            "min": 1,
            "max": 1_000_000,
        },
    )
    max_bytes_per_key: int = field(
        default=4 * 1024 * 1024,
        metadata={
            "doc": "Payload bytes stored for one key, treated as max_messages_per_key. The newest message "
            "always fits.",
            "min": 1024,
        },
    )
    max_devices_per_key: int = field(
        default=16,
        metadata={
            "doc": "Devices of one key whose acknowledged mid is remembered; over it the one that was silent "
            "longest is forgotten. Protects the disk from clients that invent device names.",
            "min": 1,
            "max": 1000,
        },
    )
    device_memory_days: int = field(
        default=30,
        metadata={
            "doc": "A device that acknowledged nothing for this long is forgotten.",
            "min": 1,
            "max": 3650,
        },
    )
    max_id_ttl_s: int = field(
        default=86_400,
        metadata={
            "doc": "Longest time that a push id is remembered (about 150 bytes each); longer wishes are cut.",
            "min": 60,
            "max": 30 * 86_400,
        },
    )
    max_deadline_s: int = field(
        default=3600,
        metadata={
            "doc": "A save whose deadline is further ahead is refused: its id would have to be remembered "
            "that long, and only a broken clock asks for it.",
            "min": 60,
            "max": 86_400,
        },
    )
    expiry_interval_s: float = field(
        default=1.0,
        metadata={
            "doc": "Pause between searches for expired messages. Readers never see them anyway; this frees "
            "the space.",
            "min": 0.01,
            "max": 3600,
        },
    )
    expiry_batch: int = field(
        default=250,
        metadata={
            "doc": "Expired rows of a kind removed in one transaction: it delays the saves behind it by some "
            "milliseconds. It takes more while more than these are saved meanwhile.",
            "min": 1,
            "max": 10_000,
        },
    )
    max_queued_saves: int = field(
        default=16_384,
        metadata={
            "doc": "Saves that wait for the writer; more are answered as overloaded. Protects the memory "
            "when the disk is slower than the pushes.",
            "min": 1,
        },
    )
    max_queued_bytes: int = field(
        default=64 * 1024 * 1024,
        metadata={"doc": "Payload bytes of the saves that wait for the writer.", "min": 1024},
    )
    max_queued_reads: int = field(
        default=16_384,
        metadata={
            "doc": "Reads that wait for a reader thread; more are answered as overloaded.",
            "min": 1,
        },
    )
    group_delay_s: float = field(
        default=0.001,
        metadata={
            "doc": "While saves come in numbers, each commit waits this long for more to share it: half the "
            "CPU of a save. A save that comes alone never waits.",
            "min": 0.0,
            "max": 0.1,
        },
    )
    max_group_saves: int = field(
        default=256,
        metadata={
            "doc": "Saves that share one commit. Bounds how long the first of them waits for the last.",
            "min": 1,
            "max": 10_000,
        },
    )
    max_group_bytes: int = field(
        default=8 * 1024 * 1024,
        metadata={"doc": "Payload bytes that share one commit.", "min": 1024},
    )
    reader_threads: int = field(
        default=2,
        metadata={
            "doc": "Threads that read for resuming subscribers. More than one, so that a read from a cold "
            "part of the disk does not hold up the others.",
            "min": 1,
            "max": 16,
        },
    )
    check_below_bytes: int = field(
        default=64 * 1024 * 1024,
        metadata={
            "doc": "A database up to this size is checked whole at every start, its indexes against their "
            "tables (a second or two at most). A larger one is checked only after an unclean stop, and "
            "without that comparison, which would take up to ten times as long. The header is always "
            "checked.",
            "min": 0,
        },
    )

    def faults(self) -> Iterable[tuple[str, str]]:
        """What is wrong between the values."""
        if not self.data_dir:
            yield "data_dir", "must not be empty"
        if self.max_group_bytes > self.max_queued_bytes:
            yield "max_group_bytes", "must not be above max_queued_bytes"
