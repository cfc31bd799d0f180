#include "flash_file.h"

#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool within(const tl_flash_file *flash, uint32_t at, size_t n)
{
    return at <= flash->port.size && n <= flash->port.size - at;
}

static bool read_flash(void *with, uint32_t at, uint8_t *to, size_t n)
{
    const tl_flash_file *flash = with;
    return within(flash, at, n) && pread(flash->file, to, n, (off_t)at) == (ssize_t)n;
}

static bool store(const tl_flash_file *flash, uint32_t at, const uint8_t *bytes, size_t n)
{
    return pwrite(flash->file, bytes, n, (off_t)at) == (ssize_t)n;
}

/* Of the bits that should change some do, by chance and in no order. */
static uint8_t torn(uint8_t from, uint8_t to, uint32_t *chance)
{
    *chance = *chance * 1664525u + 1013904223u;
    return (uint8_t)(from ^ ((from ^ to) & (*chance >> 24)));
}

static bool change(const tl_flash_file *flash, uint32_t at, uint8_t *from, const uint8_t *to, size_t n)
{
    if (!tl_disk_step()) {
        return store(flash, at, to, n);
    }
    uint32_t chance = tl_disk_chance();
    for (size_t i = 0; i < n; i++) {
        from[i] = torn(from[i], to[i], &chance);
    }
    if (!store(flash, at, from, n)) {
        perror("a power cut could not be shown");
    }
    tl_disk_cut();
}

/* A bit that should rise is a defect of the caller: a chip would leave it as it is, and say nothing. */
static bool write_flash(void *with, uint32_t at, tl_span bytes)
{
    const tl_flash_file *flash = with;
    uint8_t now[TL_FLASH_SECTOR], then[TL_FLASH_SECTOR];
    if (bytes.n > sizeof now || !read_flash(with, at, now, bytes.n)) {
        return false;
    }
    for (size_t i = 0; i < bytes.n; i++) {
        then[i] = now[i] & bytes.at[i];
        if (then[i] != bytes.at[i]) {
            fprintf(stderr, "flash: a write at %u would raise bits\n", (unsigned)(at + i));
            return false;
        }
    }
    return change(flash, at, now, then, bytes.n);
}

static bool erase_flash(void *with, uint32_t sector_at)
{
    const tl_flash_file *flash = with;
    uint8_t now[TL_FLASH_SECTOR], erased[TL_FLASH_SECTOR];
    if (sector_at % TL_FLASH_SECTOR != 0 || !read_flash(with, sector_at, now, sizeof now)) {
        return false;
    }
    memset(erased, 0xFF, sizeof erased);
    return change(flash, sector_at, now, erased, sizeof erased);
}

/* A new chip comes erased. */
static bool make(const tl_flash_file *flash)
{
    uint8_t erased[TL_FLASH_SECTOR];
    memset(erased, 0xFF, sizeof erased);
    if (ftruncate(flash->file, 0) != 0) {
        return false;
    }
    for (uint32_t at = 0; at < flash->port.size; at += TL_FLASH_SECTOR) {
        if (!store(flash, at, erased, sizeof erased)) {
            return false;
        }
    }
    return true;
}

const char *tl_flash_file_open(tl_flash_file *flash, int folder, const char *name, uint16_t sectors)
{
    struct stat found;
    const uint32_t size = (uint32_t)sectors * TL_FLASH_SECTOR;
    *flash = (tl_flash_file){{flash, size, read_flash, write_flash, erase_flash}, -1};
    flash->file = openat(folder, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (flash->file < 0 || fstat(flash->file, &found) != 0) {
        tl_flash_file_close(flash);
        return "the flash cannot be opened";
    }
    if (found.st_size != (off_t)size && !make(flash)) {
        tl_flash_file_close(flash);
        return "the flash cannot be made";
    }
    return NULL;
}

void tl_flash_file_close(tl_flash_file *flash)
{
    if (flash->file >= 0) {
        (void)close(flash->file);
        flash->file = -1;
    }
}
