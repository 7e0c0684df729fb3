"""Every bound on what a peer may make us read, in one table. Each has a test at -1, 0, +1."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Defaults of the limits table. Sizes in bytes, times in seconds."""

    # wire, PS3.8
    pdu_accepted: int = 1 * MIB  # longest PDU read; longer is aborted at its header
    pdu_offered: int = 256 * KIB  # Maximum Length Received that we announce
    associate_body: int = 64 * KIB
    presentation_contexts: int = 128
    artim_s: float = 30.0
    idle_s: float = 60.0
    dimse_answer_s: float = 60.0
    associations: int = 200
    associations_per_title: int = 25
    associations_per_address: int = 25
    unfinished_associations: int = 64  # over it the oldest is dropped
    command_set: int = 64 * KIB
    # data sets
    data_set: int = 8 * GIB
    file_meta: int = 64 * KIB
    sequence_depth: int = 64
    elements: int = 1_000_000  # in the header part (all that is not pixel data), all depths
    value: int = 16 * MIB  # one value that is not bulk
    inflate_ratio: int = 100
    inflated: int = 4 * GIB
    frames: int = 1_000_000
    frame_pixels: int = 1 << 28
    # HTTP
    http_header: int = 32 * KIB
    json_body: int = 1 * MIB
    stow_parts: int = 10_000
    # query
    query_limit: int = 500
    find_answers: int = 10_000
    identifier: int = 1 * MIB  # of C-FIND, C-GET and C-MOVE
    performed_step: int = 16 * MIB  # attributes of one N-CREATE or N-SET: it may name every image
    wild_cards: int = 8
    commitment: int = 16 * MIB  # a request or report of storage commitment
    # media
    zip_entries: int = 20_000
    zip_depth: int = 1


DEFAULT_LIMITS = Limits()
