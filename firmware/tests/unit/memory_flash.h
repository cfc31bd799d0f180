/* NOR flash in memory whose power can be cut at any operation: the operation is done in part (in order up to a byte,
 * or a bit here and there), and nothing works after it until the power is back. */
#ifndef TOWLINE_MEMORY_FLASH_H
#define TOWLINE_MEMORY_FLASH_H

#include "towline_port.h"

#include <string.h>

#define FLASH_SECTORS 8u

typedef struct {
    tl_port_flash port;
    uint32_t steps, cut_at, fail_at; /* 0: never; what fails is done in part as well, but the power stays */
    uint32_t chance;
    bool in_order, torn;
    bool cut_erase; /* the power goes in the next erase, before any bit rose */
    uint32_t raised; /* writes that would have raised a bit: the caller's defect */
    uint32_t erased[FLASH_SECTORS];
    bool dark;
    uint8_t bytes[FLASH_SECTORS * TL_FLASH_SECTOR];
} memory_flash;

static inline bool flash_read(void *with, uint32_t at, uint8_t *to, size_t n)
{
    memory_flash *flash = with;
    if (flash->dark || at > sizeof flash->bytes || n > sizeof flash->bytes - at) {
        return false;
    }
    memcpy(to, flash->bytes + at, n);
    return true;
}

/* Whether this operation is done in part. */
static inline bool flash_torn(memory_flash *flash)
{
    flash->steps++;
    flash->dark = flash->steps == flash->cut_at;
    flash->torn = flash->dark || flash->steps == flash->fail_at;
    flash->chance = flash->steps * 2654435761u;
    flash->in_order = (flash->chance & 0x100u) != 0;
    return flash->torn;
}

static inline void flash_change(memory_flash *flash, uint32_t at, uint8_t to)
{
    uint8_t mask = 0xFF;
    if (flash->torn) {
        flash->chance = flash->chance * 1664525u + 1013904223u;
        mask = flash->in_order ? 0xFF : (uint8_t)(flash->chance >> 24);
    }
    flash->bytes[at] = (uint8_t)(flash->bytes[at] ^ ((flash->bytes[at] ^ to) & mask));
}

/* How many of so many bytes an operation that is cut comes to. */
static inline size_t flash_reach(const memory_flash *flash, size_t n)
{
    return flash->torn && flash->in_order ? flash->chance / 7u % n : n;
}

static inline bool flash_write(void *with, uint32_t at, tl_span bytes)
{
    memory_flash *flash = with;
    if (flash->dark || at > sizeof flash->bytes || bytes.n > sizeof flash->bytes - at) {
        return false;
    }
    const bool torn = flash_torn(flash);
    const size_t reach = flash_reach(flash, bytes.n);
    for (uint32_t i = 0; i < reach; i++) {
        flash->raised += (bytes.at[i] & ~flash->bytes[at + i]) != 0;
        flash_change(flash, at + i, flash->bytes[at + i] & bytes.at[i]);
    }
    return !torn;
}

static inline bool flash_erase(void *with, uint32_t sector_at)
{
    memory_flash *flash = with;
    if (flash->dark || sector_at >= sizeof flash->bytes || sector_at % TL_FLASH_SECTOR != 0) {
        return false;
    }
    const bool torn = flash_torn(flash) || flash->cut_erase;
    const size_t reach = flash->cut_erase ? 0 : flash_reach(flash, TL_FLASH_SECTOR);
    flash->dark |= flash->cut_erase;
    flash->erased[sector_at / TL_FLASH_SECTOR]++;
    for (uint32_t i = 0; i < reach; i++) {
        flash_change(flash, sector_at + i, 0xFF);
    }
    return !torn;
}

static inline void flash_init(memory_flash *flash, uint16_t sectors, uint32_t cut_at)
{
    memset(flash, 0, sizeof *flash);
    memset(flash->bytes, 0xFF, sizeof flash->bytes);
    flash->port = (tl_port_flash){flash, sectors * TL_FLASH_SECTOR, flash_read, flash_write, flash_erase};
    flash->cut_at = cut_at;
}

#endif
