/* The groups, started in the order in which they stand on one another. */
#include "esp_event.h"
#include "esp_netif.h"
#include "parts.h"
#include "psa_crypto.h"

const tl_port *tl_esp_port(void)
{
    static tl_port port;
    tl_esp_queue_begin();
    ESP_ERROR_CHECK(esp_event_loop_create_default());
    ESP_ERROR_CHECK(esp_netif_init());
    port = (tl_port){
        .crypto = tl_psa_crypto(),
        .sys = tl_esp_sys(),
        .link = tl_esp_link(),
        .mqtt = tl_esp_mqtt(),
        .fetch = tl_esp_fetch(),
        .web = tl_esp_web(),
        .kv = tl_esp_kv(),
        .flash = tl_esp_flash(),
        .ota = tl_esp_ota(),
    };
    configASSERT(port.crypto != NULL);
    /* The Wi-Fi driver keeps its calibration in NVS, which is open now. */
    port.network = tl_esp_network();
#if CONFIG_TOWLINE_NETWORK_WIFI
    port.provisioning = tl_esp_provisioning();
#endif
    tl_esp_clock_begin();
    return &port;
}

void tl_esp_begun(void)
{
#if CONFIG_TOWLINE_NETWORK_WIFI
    tl_esp_provisioning_unused();
#endif
}
