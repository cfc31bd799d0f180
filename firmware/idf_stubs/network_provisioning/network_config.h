#ifndef STUB_NETWORK_PROVISIONING_NETWORK_CONFIG_H
#define STUB_NETWORK_PROVISIONING_NETWORK_CONFIG_H

#include <stdint.h>
#include <sys/types.h>

#include "esp_err.h"

typedef enum {
    NETWORK_PROV_WIFI_STA_CONNECTING,
    NETWORK_PROV_WIFI_STA_CONNECTED,
    NETWORK_PROV_WIFI_STA_DISCONNECTED,
    NETWORK_PROV_WIFI_STA_CONN_ATTEMPT_FAILED
} network_prov_wifi_sta_state_t;
typedef enum {
    NETWORK_PROV_WIFI_STA_AUTH_ERROR,
    NETWORK_PROV_WIFI_STA_AP_NOT_FOUND
} network_prov_wifi_sta_fail_reason_t;
typedef struct {
    network_prov_wifi_sta_state_t wifi_state;
    network_prov_wifi_sta_fail_reason_t fail_reason; /* one of a union, as are others */
} network_prov_config_get_wifi_data_t;
typedef struct {
    char ssid[33];
    char password[64];
} network_prov_config_set_wifi_data_t;
typedef struct network_prov_ctx network_prov_ctx_t;
typedef struct network_prov_config_handlers {
    esp_err_t (*wifi_get_status_handler)(network_prov_config_get_wifi_data_t *resp, network_prov_ctx_t **ctx);
    esp_err_t (*wifi_set_config_handler)(const network_prov_config_set_wifi_data_t *req, network_prov_ctx_t **ctx);
    esp_err_t (*wifi_apply_config_handler)(network_prov_ctx_t **ctx);
    network_prov_ctx_t *ctx;
} network_prov_config_handlers_t;

esp_err_t network_prov_config_data_handler(uint32_t session_id, const uint8_t *inbuf, ssize_t inlen,
                                           uint8_t **outbuf, ssize_t *outlen, void *priv_data);

#endif
