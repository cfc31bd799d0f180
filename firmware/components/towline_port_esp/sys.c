/* Clock, log, memory, restart. */
#include <stdatomic.h>
#include <time.h>

#include "esp_heap_caps.h"
#include "esp_log.h"
#include "esp_netif_sntp.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "parts.h"

#define TAG "towline"

static atomic_bool time_is_known;

static void time_came(struct timeval *now)
{
    (void)now;
    atomic_store(&time_is_known, true);
}

void tl_esp_clock_begin(void)
{
    esp_sntp_config_t config = ESP_NETIF_SNTP_DEFAULT_CONFIG(CONFIG_TOWLINE_TIME_SERVER);
    config.wait_for_sync = false;
    config.sync_cb = time_came;
    ESP_ERROR_CHECK(esp_netif_sntp_init(&config));
}

static uint64_t now_ms(void *with)
{
    (void)with;
    return (uint64_t)esp_timer_get_time() / 1000u + 1u;
}

static int64_t wall_s(void *with)
{
    (void)with;
    return atomic_load(&time_is_known) ? (int64_t)time(NULL) : -1;
}

static void log_line(void *with, tl_log_level level, tl_span line)
{
    (void)with;
    const int n = (int)line.n;
    const char *text = (const char *)line.at;
    switch (level) {
    case TL_LOG_ERROR:
        ESP_LOGE(TAG, "%.*s", n, text);
        return;
    case TL_LOG_WARNING:
        ESP_LOGW(TAG, "%.*s", n, text);
        return;
    case TL_LOG_INFO:
        ESP_LOGI(TAG, "%.*s", n, text);
        return;
    case TL_LOG_DEBUG:
        ESP_LOGD(TAG, "%.*s", n, text);
        return;
    }
}

/* What TLS and the stacks are taken from: memory in PSRAM does not help them. */
static void memory(void *with, tl_memory *found)
{
    (void)with;
    const uint32_t kind = MALLOC_CAP_INTERNAL | MALLOC_CAP_8BIT;
    found->available = (uint32_t)heap_caps_get_free_size(kind);
    found->least = (uint32_t)heap_caps_get_minimum_free_size(kind);
    found->largest = (uint32_t)heap_caps_get_largest_free_block(kind);
}

static tl_reset_reason reset_reason(void *with)
{
    (void)with;
    switch (esp_reset_reason()) {
    case ESP_RST_SW:
        return TL_RESET_ASKED;
    case ESP_RST_PANIC:
        return TL_RESET_CRASH;
    case ESP_RST_INT_WDT:
    case ESP_RST_TASK_WDT:
    case ESP_RST_WDT:
        return TL_RESET_WATCHDOG;
    case ESP_RST_BROWNOUT:
        return TL_RESET_BROWNOUT;
    default: /* the button, a debugger, USB: as if it had been plugged in */
        return TL_RESET_POWER;
    }
}

static void reboot(void *with)
{
    (void)with;
    tl_esp_restart_soon();
}

const tl_port_sys *tl_esp_sys(void)
{
    static const tl_port_sys group = {NULL, now_ms, wall_s, log_line, memory, reset_reason, reboot};
    return &group;
}
