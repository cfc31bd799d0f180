#include "ota_files.h"

#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The boot record: magic, the slot that boots, what is known of it. */
#define RECORD "boot"
#define RECORD_BYTES 6u
/* Says to an image that it is the one that boots, and where the boot loader is. */
#define SLOT_VARIABLE "TOWLINE_SLOT"
#define LOADER_VARIABLE "TOWLINE_BOOT_LOADER"
#define PATH_LONGEST 4096u

static const char MAGIC[4] = "TLBT";
static const char *const IMAGE[2] = {"image.0", "image.1"};

typedef enum { VALID, NEW, TRIED } knowledge; /* NEW: it boots once; TRIED: it did, and was not marked valid */

typedef struct {
    uint8_t slot;
    uint8_t known; /* a knowledge */
} boot_record;

/* Slot 0 and valid where there is no record: the device is new. */
static bool read_record(int folder, boot_record *record)
{
    char bytes[RECORD_BYTES + 1];
    *record = (boot_record){0, VALID};
    const int file = openat(folder, RECORD, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return errno == ENOENT;
    }
    const ssize_t n = read(file, bytes, sizeof bytes);
    (void)close(file); /* it was only read */
    if (n != RECORD_BYTES || memcmp(bytes, MAGIC, sizeof MAGIC) != 0 || bytes[4] < 0 || bytes[4] > 1 || bytes[5] < 0 ||
        bytes[5] > TRIED) {
        return false;
    }
    *record = (boot_record){(uint8_t)bytes[4], (uint8_t)bytes[5]};
    return true;
}

static bool write_record(int folder, uint8_t slot, knowledge known)
{
    char bytes[RECORD_BYTES];
    memcpy(bytes, MAGIC, sizeof MAGIC);
    bytes[4] = (char)slot;
    bytes[5] = (char)known;
    return tl_disk_replace(folder, RECORD, bytes, sizeof bytes);
}

/* --- the boot loader --- */

static bool remember_loader(void)
{
    char path[PATH_LONGEST];
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) {
        return false;
    }
    path[n] = '\0';
    return setenv(LOADER_VARIABLE, path, 1) == 0;
}

static bool path_of(int folder, const char *name, char *path, size_t size)
{
    char link[32];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    const ssize_t n = readlink(link, path, size);
    if (n <= 0 || (size_t)n + 1 + strlen(name) >= size) {
        return false;
    }
    path[n] = '/';
    memcpy(path + n + 1, name, strlen(name) + 1);
    return true;
}

/* Takes this process' place; returns where the slot has no image, or none that can be executed. */
static void execute(int folder, uint8_t slot, char **argv)
{
    char path[PATH_LONGEST];
    if (path_of(folder, IMAGE[slot], path, sizeof path) && setenv(SLOT_VARIABLE, slot == 0 ? "0" : "1", 1) == 0) {
        (void)execv(path, argv);
        (void)unsetenv(SLOT_VARIABLE);
    }
}

/* What boots now. An image that had its one chance makes place for the former one. */
static bool choose(int folder, boot_record *record)
{
    if (record->known == VALID) {
        return true;
    }
    if (record->known == TRIED) {
        *record = (boot_record){record->slot ^ 1u, VALID};
        return write_record(folder, record->slot, VALID);
    }
    record->known = TRIED;
    return write_record(folder, record->slot, TRIED);
}

const char *tl_ota_files_boot(tl_ota_files *ota, int folder, char **argv)
{
    boot_record record;
    *ota = (tl_ota_files){.folder = folder, .file = -1};
    const char *chosen = getenv(SLOT_VARIABLE);
    if (!read_record(folder, &record)) {
        return "the boot record is damaged";
    }
    if (chosen == NULL) { /* this is the boot loader */
        if (!remember_loader() || !choose(folder, &record)) {
            return "the boot record cannot be written";
        }
        execute(folder, record.slot, argv);
        if (record.slot == 1 || record.known == TRIED) { /* what cannot be executed does not boot */
            record = (boot_record){record.slot ^ 1u, VALID};
            if (!write_record(folder, record.slot, VALID)) {
                return "the boot record cannot be written";
            }
            execute(folder, record.slot, argv);
        }
        if (record.slot == 1) {
            return "no image can be executed";
        }
    } else {
        record.slot = strcmp(chosen, "1") == 0;
        (void)unsetenv(SLOT_VARIABLE); /* programs that the image starts are no images */
    }
    ota->port.slot = record.slot;
    ota->trial = record.known == TRIED;
    return NULL;
}

bool tl_ota_files_restart(char **argv)
{
    const char *loader = getenv(LOADER_VARIABLE);
    (void)unsetenv(SLOT_VARIABLE);
    if (loader != NULL) {
        (void)execv(loader, argv);
    }
    return false;
}

/* --- the group of the port header --- */

static void abandon(void *with)
{
    tl_ota_files *ota = with;
    if (ota->file >= 0) {
        (void)close(ota->file);
        (void)unlinkat(ota->folder, IMAGE[ota->port.slot ^ 1u], 0);
        ota->file = -1;
    }
}

static bool begin(void *with, uint32_t size)
{
    tl_ota_files *ota = with;
    abandon(ota);
    if (size > ota->port.largest) {
        return false;
    }
    ota->at = 0;
    ota->file = openat(ota->folder, IMAGE[ota->port.slot ^ 1u], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    return ota->file >= 0;
}

static bool write_piece(void *with, tl_span bytes)
{
    tl_ota_files *ota = with;
    if (ota->file < 0 || !tl_disk_write(ota->file, (off_t)ota->at, bytes.at, bytes.n)) {
        return false;
    }
    ota->at += (uint32_t)bytes.n;
    return true;
}

static bool finish(void *with)
{
    tl_ota_files *ota = with;
    if (ota->file < 0) {
        return false;
    }
    const bool whole = tl_disk_sync(ota->file);
    const bool closed = close(ota->file) == 0;
    ota->file = -1;
    return whole && closed && write_record(ota->folder, ota->port.slot ^ 1u, NEW);
}

static bool on_trial(void *with)
{
    const tl_ota_files *ota = with;
    return ota->trial;
}

static bool mark_valid(void *with)
{
    tl_ota_files *ota = with;
    if (ota->trial && !write_record(ota->folder, ota->port.slot, VALID)) {
        return false;
    }
    ota->trial = false;
    return true;
}

static void rollback(void *with)
{
    tl_ota_files *ota = with;
    /* Written or not: an image on trial does not boot twice. */
    (void)write_record(ota->folder, ota->port.slot ^ 1u, VALID);
    ota->restart(ota->owner);
}

void tl_ota_files_init(tl_ota_files *ota, void (*restart)(void *owner), void *owner)
{
    ota->restart = restart;
    ota->owner = owner;
    ota->port = (tl_port_ota){ota,    TL_OTA_TARGET_SIMULATOR, ota->port.slot, TL_OTA_LARGEST, begin, write_piece, finish,
                              abandon, on_trial,               mark_valid,     rollback};
}
