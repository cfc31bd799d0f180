#ifndef STUB_PROTOCOMM_BLE_H
#define STUB_PROTOCOMM_BLE_H

#include "protocomm.h"

#define MAX_BLE_DEVNAME_LEN 29
#define BLE_UUID128_VAL_LENGTH 16

typedef struct name_uuid {
    const char *name;
    uint16_t uuid;
} protocomm_ble_name_uuid_t;
typedef struct protocomm_ble_config {
    char device_name[MAX_BLE_DEVNAME_LEN + 1];
    uint8_t service_uuid[BLE_UUID128_VAL_LENGTH];
    ssize_t nu_lookup_count;
    protocomm_ble_name_uuid_t *nu_lookup;
} protocomm_ble_config_t;

esp_err_t protocomm_ble_start(protocomm_t *pc, const protocomm_ble_config_t *config);
esp_err_t protocomm_ble_stop(protocomm_t *pc);

#endif
