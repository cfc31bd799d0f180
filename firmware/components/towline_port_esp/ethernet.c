/* Ethernet by the ESP32's own MAC and a LAN87xx PHY (LAN8720 boards); the pins are Kconfig's. */
#include "esp_eth.h"
#include "esp_eth_mac_esp.h"
#include "interface.h"

bool tl_esp_interface_apply(tl_span ssid, tl_span password)
{
    (void)ssid;
    (void)password;
    return true;
}

bool tl_esp_interface_rssi(int8_t *dbm)
{
    (void)dbm;
    return false;
}

static void unplugged(void *with, esp_event_base_t base, int32_t id, void *data)
{
    (void)with;
    (void)base;
    (void)id;
    (void)data;
    tl_esp_network_is_down();
}

static esp_eth_handle_t new_driver(void)
{
    eth_mac_config_t mac = ETH_MAC_DEFAULT_CONFIG();
    eth_esp32_emac_config_t emac = ETH_ESP32_EMAC_DEFAULT_CONFIG();
    eth_phy_config_t phy = ETH_PHY_DEFAULT_CONFIG();
    emac.smi_gpio.mdc_num = CONFIG_TOWLINE_ETHERNET_MDC;
    emac.smi_gpio.mdio_num = CONFIG_TOWLINE_ETHERNET_MDIO;
    phy.phy_addr = CONFIG_TOWLINE_ETHERNET_PHY_ADDRESS;
    phy.reset_gpio_num = CONFIG_TOWLINE_ETHERNET_PHY_RESET;
    esp_eth_config_t config = ETH_DEFAULT_CONFIG(esp_eth_mac_new_esp32(&emac, &mac), esp_eth_phy_new_lan87xx(&phy));
    esp_eth_handle_t driver = NULL;
    ESP_ERROR_CHECK(esp_eth_driver_install(&config, &driver));
    return driver;
}

esp_netif_t *tl_esp_interface_begin(void)
{
    const esp_netif_config_t config = ESP_NETIF_DEFAULT_ETH();
    esp_netif_t *interface = esp_netif_new(&config);
    esp_eth_handle_t driver = new_driver();
    ESP_ERROR_CHECK(esp_netif_attach(interface, esp_eth_new_netif_glue(driver)));
    ESP_ERROR_CHECK(esp_event_handler_register(ETH_EVENT, ETHERNET_EVENT_DISCONNECTED, unplugged, NULL));
    ESP_ERROR_CHECK(esp_event_handler_register(IP_EVENT, IP_EVENT_ETH_GOT_IP, tl_esp_network_is_up, NULL));
    ESP_ERROR_CHECK(esp_eth_start(driver));
    return interface;
}
