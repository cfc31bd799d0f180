/* The partition "outbox" of partitions.csv. It is not encrypted: its records are written a few bytes at a time, and
 * hold what is on its way to the gateway's broker anyway. */
#include "esp_partition.h"
#include "parts.h"

static const esp_partition_t *part(void *with)
{
    return with;
}

static bool read_flash(void *with, uint32_t at, uint8_t *to, size_t n)
{
    return esp_partition_read(part(with), at, to, n) == ESP_OK;
}

static bool write_flash(void *with, uint32_t at, tl_span bytes)
{
    return esp_partition_write(part(with), at, bytes.at, bytes.n) == ESP_OK;
}

static bool erase_sector(void *with, uint32_t sector_at)
{
    return esp_partition_erase_range(part(with), sector_at, TL_FLASH_SECTOR) == ESP_OK;
}

const tl_port_flash *tl_esp_flash(void)
{
    static tl_port_flash group = {NULL, 0, read_flash, write_flash, erase_sector};
    const esp_partition_t *found =
        esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_ANY, "outbox");
    configASSERT(found != NULL);
    group.with = (void *)(uintptr_t)found;
    group.size = found->size;
    return &group;
}
