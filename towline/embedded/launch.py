"""Turn this fresh process into a child that ends with its parent, in a jail where one is asked; then exec.

Run as a file, before anything is imported, because a change of user or namespace belongs to a process with
one thread::

    python -I -S launch.py '{"parent": 123, "death_signal": 9, "jail": null, "argv": ["…"]}'

The jail is for the database under root: PostgreSQL refuses to run as root, initdb wants its user in
/etc/passwd, and the data may lie below a folder like /root that no other user may enter. In a mount
namespace of its own it gets a passwd file with its user and sees its folder at a place it can reach; nothing
changes for the rest of the system.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

# linux/prctl.h, linux/sched.h, linux/mount.h
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNS = 0x00020000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 1 << 18

EXIT_NO_JAIL = 70  # this system does not let root make a mount namespace (a container without CAP_SYS_ADMIN)
EXIT_ORPHAN = 71  # the parent was gone before this process could ask to end with it


def _call(libc: ctypes.CDLL, name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _enter_jail(libc: ctypes.CDLL, folder: str, mount_point: str, passwd: str) -> None:
    _call(libc, "unshare", _CLONE_NEWNS)
    _call(libc, "mount", None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
    _call(libc, "mount", passwd.encode(), b"/etc/passwd", None, ctypes.c_ulong(_MS_BIND), None)
    _call(libc, "mount", folder.encode(), mount_point.encode(), None, ctypes.c_ulong(_MS_BIND), None)
    os.chdir(mount_point)


def _become(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def main() -> int:
    order = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    jail = order["jail"]
    if jail is not None:
        try:
            if jail["mount_point"] is not None:
                _enter_jail(libc, jail["folder"], jail["mount_point"], jail["passwd"])
            _become(jail["uid"])
        except OSError as error:
            print(f"launch: {error}", file=sys.stderr)
            return EXIT_NO_JAIL
    if sys.platform == "linux":
        # After the change of user, which clears it (prctl(2)).
        _call(libc, "prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _call(libc, "prctl", _PR_SET_PDEATHSIG, order["death_signal"], 0, 0, 0)
        if os.getppid() != order["parent"]:
            return EXIT_ORPHAN
    os.execv(order["argv"][0], order["argv"])


if __name__ == "__main__":
    sys.exit(main())
