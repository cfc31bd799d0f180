/* Images: two slots, and a boot loader that goes back to the former one when the new one is not confirmed
 * (CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE). The core has checked our own header before the first byte comes here;
 * esp_ota_end checks IDF's hash, and its signature where secure boot is on. */
#include "esp_ota_ops.h"
#include "parts.h"

static const esp_partition_t *slot; /* that is being written */
static esp_ota_handle_t writing;

static bool begin(void *with, uint32_t size)
{
    (void)with;
    slot = esp_ota_get_next_update_partition(NULL);
    if (slot == NULL || size > slot->size) {
        slot = NULL;
        return false;
    }
    /* Sectors are erased as the image comes: erasing all at once would stop the connections that bring it. */
    if (esp_ota_begin(slot, OTA_WITH_SEQUENTIAL_WRITES, &writing) != ESP_OK) {
        slot = NULL;
        return false;
    }
    return true;
}

static bool write_piece(void *with, tl_span bytes)
{
    (void)with;
    return slot != NULL && esp_ota_write(writing, bytes.at, bytes.n) == ESP_OK;
}

static bool finish(void *with)
{
    (void)with;
    const esp_partition_t *whole = slot;
    slot = NULL;
    return whole != NULL && esp_ota_end(writing) == ESP_OK && esp_ota_set_boot_partition(whole) == ESP_OK;
}

static void abandon(void *with)
{
    (void)with;
    if (slot != NULL) {
        slot = NULL;
        esp_ota_abort(writing);
    }
}

static bool on_trial(void *with)
{
    (void)with;
    esp_ota_img_states_t state;
    return esp_ota_get_state_partition(esp_ota_get_running_partition(), &state) == ESP_OK &&
           state == ESP_OTA_IMG_PENDING_VERIFY;
}

static bool mark_valid(void *with)
{
    (void)with;
    return esp_ota_mark_app_valid_cancel_rollback() == ESP_OK;
}

/* Where there is no former image it returns, and this one stays. */
static void rollback(void *with)
{
    (void)with;
    esp_ota_mark_app_invalid_rollback();
    tl_esp_restart_soon();
}

const tl_port_ota *tl_esp_ota(void)
{
    static tl_port_ota group = {
        NULL, CONFIG_IDF_FIRMWARE_CHIP_ID, 0, 0, begin, write_piece, finish, abandon, on_trial, mark_valid, rollback};
    const esp_partition_t *next = esp_ota_get_next_update_partition(NULL);
    configASSERT(next != NULL);
    group.slot = esp_ota_get_running_partition()->subtype == ESP_PARTITION_SUBTYPE_APP_OTA_1;
    group.largest = next->size;
    return &group;
}
