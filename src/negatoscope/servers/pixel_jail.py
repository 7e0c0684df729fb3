"""System calls that a pixel child has no use for, refused by the kernel (seccomp, Linux).

A short list of what would let a taken-over decoder out: sockets, programs, other processes, and files
opened for writing. All else stays allowed, so that a codec never trips over a call we forgot.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import sys
from struct import pack

# Numbers from the kernel's tables, by machine: (audit architecture, openat, refused outright).
_X86 = (41, 42, 43, 49, 50, 53, 56, 57, 58, 59, 62, 101, 200, 234, 288, 310, 311, 322)
_ARM = (198, 199, 200, 201, 202, 203, 117, 129, 130, 131, 220, 221, 242, 270, 271, 281)
_MACHINES = {"x86_64": (0xC000003E, 257, _X86), "aarch64": (0xC00000B7, 56, _ARM)}
_OPEN_X86, _CREAT_X86, _OPENAT2, _CLONE3, _URING = 2, 85, 437, 435, 425

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _REFUSE, _ABSENT = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
_WRITING = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_network_and_programs() -> bool:
    """Lock the calling process in. False where the machine or its kernel does not offer it."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES or sys.maxsize < 1 << 32:
        return False
    program = b"".join(_filter(*_MACHINES[platform.machine()]))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    given = _Program(len(program) // 8, program)
    return bool(libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(given), 0, 0) == 0)


def _filter(architecture: int, openat: int, refused: tuple[int, ...]) -> list[bytes]:
    """A classic BPF program over (number, architecture, arguments)."""
    lines = [
        pack("<HBBL", _LOAD, 0, 0, 4),  # the architecture
        pack("<HBBL", _EQUAL, 1, 0, architecture),
        pack("<HBBL", _RETURN, 0, 0, _REFUSE),
        pack("<HBBL", _LOAD, 0, 0, 0),  # the call's number
    ]
    outright = (*refused, _URING, _OPENAT2, *((_CREAT_X86,) if openat == 257 else ()))
    for number in outright:
        lines += [pack("<HBBL", _EQUAL, 0, 1, number), pack("<HBBL", _RETURN, 0, 0, _REFUSE)]
    # clone3 hides its flags from filters: the C library falls back to clone, which is refused above.
    lines += [pack("<HBBL", _EQUAL, 0, 1, _CLONE3), pack("<HBBL", _RETURN, 0, 0, _ABSENT)]
    opening = [(openat, 32), *(((_OPEN_X86, 24),) if openat == 257 else ())]  # offset of the flags
    for number, flags in opening:
        lines += [
            pack("<HBBL", _EQUAL, 0, 4, number),
            pack("<HBBL", _LOAD, 0, 0, flags),
            pack("<HBBL", _ANY_BIT, 0, 1, _WRITING),
            pack("<HBBL", _RETURN, 0, 0, _REFUSE),
            pack("<HBBL", _RETURN, 0, 0, _ALLOW),
        ]
    lines.append(pack("<HBBL", _RETURN, 0, 0, _ALLOW))
    return lines
