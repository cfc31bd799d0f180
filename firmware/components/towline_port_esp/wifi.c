/* Wi-Fi as a station. The settings are the core's: nothing of them is kept by the driver. */
#include <stdatomic.h>
#include <string.h>

#include "esp_timer.h"
#include "esp_wifi.h"
#include "interface.h"

enum { RETRY_MS = 2000 };

static esp_timer_handle_t retry;
static atomic_bool wanted; /* there is a network to connect to */
static atomic_bool joined;

static void connect_again(void *with)
{
    (void)with;
    if (atomic_load(&wanted) && !atomic_load(&joined)) {
        esp_wifi_connect();
    }
}

static void disconnected(void *with, esp_event_base_t base, int32_t id, void *data)
{
    (void)with;
    (void)base;
    (void)id;
    (void)data;
    atomic_store(&joined, false);
    tl_esp_network_is_down();
    if (atomic_load(&wanted)) {
        esp_timer_start_once(retry, (uint64_t)RETRY_MS * 1000u); /* refused: it runs already */
    }
}

static void connected(void *with, esp_event_base_t base, int32_t id, void *data)
{
    (void)with;
    (void)base;
    (void)id;
    (void)data;
    atomic_store(&joined, true);
}

bool tl_esp_interface_apply(tl_span ssid, tl_span password)
{
    wifi_config_t config = {0};
    if (ssid.n > sizeof config.sta.ssid || password.n > sizeof config.sta.password) {
        return false;
    }
    atomic_store(&wanted, ssid.n > 0);
    esp_wifi_disconnect();
    if (ssid.n == 0) {
        return true;
    }
    memcpy(config.sta.ssid, ssid.at, ssid.n);
    if (password.n > 0) {
        memcpy(config.sta.password, password.at, password.n);
        config.sta.threshold.authmode = WIFI_AUTH_WPA2_PSK; /* a password is not told to a weaker network */
    }
    return esp_wifi_set_config(WIFI_IF_STA, &config) == ESP_OK && esp_wifi_connect() == ESP_OK;
}

bool tl_esp_interface_rssi(int8_t *dbm)
{
    int found;
    if (esp_wifi_sta_get_rssi(&found) != ESP_OK) {
        return false;
    }
    *dbm = (int8_t)found;
    return true;
}

esp_netif_t *tl_esp_interface_begin(void)
{
    const wifi_init_config_t config = WIFI_INIT_CONFIG_DEFAULT();
    const esp_timer_create_args_t timer = {.callback = connect_again, .name = "towline_wifi"};
    esp_netif_t *interface = esp_netif_create_default_wifi_sta();
    ESP_ERROR_CHECK(esp_timer_create(&timer, &retry));
    ESP_ERROR_CHECK(esp_wifi_init(&config));
    ESP_ERROR_CHECK(esp_event_handler_register(WIFI_EVENT, WIFI_EVENT_STA_CONNECTED, connected, NULL));
    ESP_ERROR_CHECK(esp_event_handler_register(WIFI_EVENT, WIFI_EVENT_STA_DISCONNECTED, disconnected, NULL));
    ESP_ERROR_CHECK(esp_event_handler_register(IP_EVENT, IP_EVENT_STA_GOT_IP, tl_esp_network_is_up, NULL));
    ESP_ERROR_CHECK(esp_wifi_set_storage(WIFI_STORAGE_RAM));
    ESP_ERROR_CHECK(esp_wifi_set_mode(WIFI_MODE_STA));
    ESP_ERROR_CHECK(esp_wifi_start());
    return interface;
}
