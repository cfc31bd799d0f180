/* The chip's main task is the core's task. */
#include <stdio.h>
#include <stdlib.h>

#include "esp_app_desc.h"
#include "esp_mac.h"
#include "esp_task_wdt.h"
#include "sdkconfig.h"
#include "towline/device.h"
#include "towline/ota.h"
#include "towline_port_esp.h"

enum { MAC = 6, ID = 2 * MAC, TURN_MS = 10000 }; /* a turn is shorter than CONFIG_ESP_TASK_WDT_TIMEOUT_S */

/* The factory's address, in hexadecimal: it stays, whatever is stored or erased. */
static tl_span hardware_id(void)
{
    static char text[ID + 1];
    uint8_t mac[MAC];
    ESP_ERROR_CHECK(esp_efuse_mac_get_default(mac));
    for (size_t i = 0; i < MAC; i++) {
        snprintf(text + 2 * i, 3, "%02x", mac[i]);
    }
    return (tl_span){(const uint8_t *)text, ID};
}

static tl_device *new_device(const tl_port *port)
{
    static tl_config config;
    static tl_firmware firmware;
    const char *version = esp_app_get_description()->version;
    const bool takes_images =
        tl_firmware_read(&firmware, CONFIG_TOWLINE_HARDWARE, version, CONFIG_TOWLINE_SECURITY_VERSION,
                         CONFIG_TOWLINE_FIRMWARE_KEY, CONFIG_TOWLINE_SPARE_KEY);
    config = (tl_config){
        .version = version,
        .hardware = CONFIG_TOWLINE_HARDWARE,
        .type = "esp32",
        .hardware_id = hardware_id(),
        .max_streams = CONFIG_TOWLINE_MAX_STREAMS,
        .outbox_sectors = (uint16_t)(port->flash->size / TL_FLASH_SECTOR),
        .firmware = takes_images ? &firmware : NULL,
        .steady_ms = TL_OTA_STEADY_MS,
        .patience_ms = TL_OTA_PATIENCE_MS,
    };
    void *memory = calloc(1, tl_device_size(&config));
    return memory != NULL ? tl_device_init(memory, &config, port) : NULL;
}

void app_main(void)
{
    const tl_port *port = tl_esp_port();
    tl_device *device = new_device(port);
    if (device == NULL) {
        abort(); /* starts anew; an image on trial goes back to the former one */
    }
    tl_esp_begun();
    ESP_ERROR_CHECK(esp_task_wdt_add(NULL));
    for (;;) {
        const uint32_t ms = tl_device_run(device);
        const tl_event event = tl_esp_wait(ms < TURN_MS ? ms : TURN_MS);
        tl_device_event(device, &event);
        ESP_ERROR_CHECK(esp_task_wdt_reset());
    }
}
