/* What Wi-Fi and Ethernet share: whether there is an address, and how this device is called on the LAN. */
#include <stdatomic.h>
#include <stdio.h>

#include "esp_mac.h"
#include "interface.h"
#include "mdns.h"

enum { HOSTNAME_MAX = 24, ADDRESS_MAX = 16, MAC = 6 };

static esp_netif_t *interface;
static char hostname[HOSTNAME_MAX];
static atomic_bool up;

void tl_esp_network_is_up(void *with, esp_event_base_t base, int32_t id, void *data)
{
    (void)with;
    (void)base;
    (void)id;
    (void)data;
    if (!atomic_exchange(&up, true)) {
        tl_esp_post_last(&(tl_event){.kind = TL_EVENT_NETWORK_UP});
    }
}

void tl_esp_network_is_down(void)
{
    if (atomic_exchange(&up, false)) {
        tl_esp_post_last(&(tl_event){.kind = TL_EVENT_NETWORK_DOWN});
    }
}

static bool apply(void *with, tl_span ssid, tl_span password)
{
    (void)with;
    return tl_esp_interface_apply(ssid, password);
}

static bool rssi(void *with, int8_t *dbm)
{
    (void)with;
    return atomic_load(&up) && tl_esp_interface_rssi(dbm);
}

static void put(tl_out *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (out->n == out->cap) {
            out->full = true;
            return;
        }
        out->at[out->n++] = (uint8_t)*text;
    }
}

static bool name(void *with, size_t index, tl_out *host)
{
    (void)with;
    if (index == 0) {
        put(host, hostname);
        put(host, ".local");
        return true;
    }
    esp_netif_ip_info_t found;
    char text[ADDRESS_MAX];
    if (index > 1 || !atomic_load(&up) || esp_netif_get_ip_info(interface, &found) != ESP_OK ||
        esp_ip4addr_ntoa(&found.ip, text, sizeof text) == NULL) {
        return false;
    }
    put(host, text);
    return true;
}

/* "towline-1a2b3c": the end of the address that the label shows. */
static void name_host(void)
{
    uint8_t mac[MAC];
    ESP_ERROR_CHECK(esp_efuse_mac_get_default(mac));
    snprintf(hostname, sizeof hostname, "towline-%02x%02x%02x", mac[3], mac[4], mac[5]);
}

const tl_port_network *tl_esp_network(void)
{
    static const tl_port_network group = {NULL, apply, rssi, name};
    name_host();
    ESP_ERROR_CHECK(mdns_init());
    ESP_ERROR_CHECK(mdns_hostname_set(hostname));
    ESP_ERROR_CHECK(mdns_service_add(NULL, "_http", "_tcp", CONFIG_TOWLINE_LAN_PORT, NULL, 0));
    interface = tl_esp_interface_begin();
    ESP_ERROR_CHECK(esp_netif_set_hostname(interface, hostname));
    return &group;
}
