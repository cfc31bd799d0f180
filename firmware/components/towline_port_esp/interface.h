/* The one network interface: wifi.c or ethernet.c, as Kconfig says; network.c is what both share. */
#ifndef TOWLINE_ESP_INTERFACE_H
#define TOWLINE_ESP_INTERFACE_H

#include "esp_event.h"
#include "esp_netif.h"
#include "parts.h"

/* Brings the interface up as far as it goes without settings. */
esp_netif_t *tl_esp_interface_begin(void);
bool tl_esp_interface_apply(tl_span ssid, tl_span password);
bool tl_esp_interface_rssi(int8_t *dbm);

/* For an interface to call when its connection broke; what is told twice is told once. */
void tl_esp_network_is_down(void);
/* For IP_EVENT_…_GOT_IP. */
void tl_esp_network_is_up(void *with, esp_event_base_t base, int32_t id, void *data);

#endif
