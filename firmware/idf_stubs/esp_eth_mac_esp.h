#ifndef STUB_ESP_ETH_MAC_ESP_H
#define STUB_ESP_ETH_MAC_ESP_H

#include "esp_eth.h"

typedef struct {
    int mdc_num;
    int mdio_num;
} emac_esp_smi_gpio_config_t;
typedef struct {
    emac_esp_smi_gpio_config_t smi_gpio;
} eth_esp32_emac_config_t;

#define ETH_ESP32_EMAC_DEFAULT_CONFIG() {.smi_gpio = {.mdc_num = 23, .mdio_num = 18}}

esp_eth_mac_t *esp_eth_mac_new_esp32(const eth_esp32_emac_config_t *esp32_config, const eth_mac_config_t *config);

#endif
