#ifndef STUB_ESP_ETH_H
#define STUB_ESP_ETH_H

#include <stdint.h>

#include "esp_err.h"
#include "esp_event.h"

extern esp_event_base_t const ETH_EVENT;

typedef enum { ETHERNET_EVENT_START, ETHERNET_EVENT_STOP, ETHERNET_EVENT_CONNECTED, ETHERNET_EVENT_DISCONNECTED } eth_event_t;
typedef void *esp_eth_handle_t;
typedef struct esp_eth_mac_s esp_eth_mac_t;
typedef struct esp_eth_phy_s esp_eth_phy_t;
typedef struct {
    uint32_t sw_reset_timeout_ms;
} eth_mac_config_t;
typedef struct {
    int32_t phy_addr;
    uint32_t reset_timeout_ms;
    uint32_t autonego_timeout_ms;
    int reset_gpio_num;
} eth_phy_config_t;
typedef struct {
    esp_eth_mac_t *mac;
    esp_eth_phy_t *phy;
} esp_eth_config_t;
typedef struct esp_eth_netif_glue_t *esp_eth_netif_glue_handle_t;

#define ETH_MAC_DEFAULT_CONFIG() {.sw_reset_timeout_ms = 100}
#define ETH_PHY_DEFAULT_CONFIG() {.phy_addr = -1, .reset_timeout_ms = 100, .reset_gpio_num = 5}
#define ETH_DEFAULT_CONFIG(emac, ephy) {.mac = emac, .phy = ephy}

esp_eth_phy_t *esp_eth_phy_new_lan87xx(const eth_phy_config_t *config);
esp_err_t esp_eth_driver_install(const esp_eth_config_t *config, esp_eth_handle_t *out);
esp_err_t esp_eth_start(esp_eth_handle_t handle);
esp_eth_netif_glue_handle_t esp_eth_new_netif_glue(esp_eth_handle_t handle);

#endif
