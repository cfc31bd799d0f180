#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define NAME_MAX_BYTES 64 /* names of this folder's files are ours, and short */

/* One process, one disk: the count goes over all files. */
static struct {
    uint64_t steps, cut_at;
    int unsynced;   /* the file that was written last; -1: it was synced */
    off_t kept, end; /* of that file: what is on the disk surely, and what was written */
} disk = {.unsynced = -1};

void tl_disk_cut_at(uint64_t step)
{
    disk.steps = 0;
    disk.cut_at = step;
}

uint64_t tl_disk_steps(void)
{
    return disk.steps;
}

bool tl_disk_step(void)
{
    disk.steps++;
    return disk.steps == disk.cut_at;
}

/* splitmix64: the same cut tears the same way each time. */
uint32_t tl_disk_chance(void)
{
    uint64_t z = (disk.steps + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (uint32_t)(z >> 32);
}

_Noreturn void tl_disk_cut(void)
{
    if (disk.unsynced >= 0 && disk.end > disk.kept) {
        const off_t left = disk.kept + (off_t)(tl_disk_chance() % (uint32_t)(disk.end - disk.kept));
        if (ftruncate(disk.unsynced, left) != 0) {
            perror("a power cut could not be shown");
        }
    }
    _exit(TL_DISK_CUT_EXIT);
}

bool tl_disk_write(int file, off_t at, const void *bytes, size_t n)
{
    if (disk.unsynced != file) {
        disk.unsynced = file;
        disk.kept = at;
        disk.end = at;
    }
    const bool cut = tl_disk_step();
    const size_t wanted = cut ? tl_disk_chance() % (n + 1) : n;
    size_t done = 0;
    while (done < wanted) {
        const ssize_t wrote = pwrite(file, (const char *)bytes + done, wanted - done, at + (off_t)done);
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        if (wrote <= 0) {
            return false;
        }
        done += (size_t)wrote;
    }
    if (at + (off_t)done > disk.end) {
        disk.end = at + (off_t)done;
    }
    if (cut) {
        tl_disk_cut();
    }
    return true;
}

bool tl_disk_sync(int file)
{
    if (tl_disk_step()) {
        tl_disk_cut();
    }
    if (fsync(file) != 0) {
        return false;
    }
    if (disk.unsynced == file) {
        disk.unsynced = -1;
    }
    return true;
}

bool tl_disk_rename(int folder, const char *from, const char *to)
{
    if (tl_disk_step()) {
        tl_disk_cut();
    }
    if (renameat(folder, from, folder, to) != 0) {
        return false;
    }
    if (tl_disk_step()) {
        tl_disk_cut();
    }
    return fsync(folder) == 0;
}

bool tl_disk_replace(int folder, const char *name, const void *bytes, size_t n)
{
    char fresh[NAME_MAX_BYTES];
    const int length = snprintf(fresh, sizeof fresh, "%s.new", name);
    if (length < 0 || (size_t)length >= sizeof fresh) {
        return false;
    }
    const int file = openat(folder, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) {
        return false;
    }
    const bool written = tl_disk_write(file, 0, bytes, n) && tl_disk_sync(file);
    return (close(file) == 0) && written && tl_disk_rename(folder, fresh, name);
}
