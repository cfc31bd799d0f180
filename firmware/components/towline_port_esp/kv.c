/* What outlives a restart, in NVS. With CONFIG_NVS_ENCRYPTION its keys lie in the efuses (README.md). */
#include "nvs.h"
#include "nvs_flash.h"
#include "parts.h"

static nvs_handle_t store;

static bool get(void *with, const char *key, tl_out *value)
{
    (void)with;
    if (value->full) {
        return false;
    }
    size_t n = value->cap - value->n;
    if (nvs_get_blob(store, key, value->at + value->n, &n) != ESP_OK) {
        return false;
    }
    value->n += n;
    return true;
}

static bool set(void *with, const char *key, tl_span value)
{
    (void)with;
    return value.n <= TL_KV_VALUE_MAX && nvs_set_blob(store, key, value.at, value.n) == ESP_OK;
}

static bool erase(void *with, const char *key)
{
    (void)with;
    const esp_err_t done = nvs_erase_key(store, key);
    return done == ESP_OK || done == ESP_ERR_NVS_NOT_FOUND;
}

static bool commit(void *with)
{
    (void)with;
    return nvs_commit(store) == ESP_OK;
}

static bool erase_all(void *with)
{
    (void)with;
    return nvs_erase_all(store) == ESP_OK && nvs_commit(store) == ESP_OK;
}

/* What cannot be read is never erased here: an enrolled device would silently forget who it is. It starts anew; an
 * image on trial goes back to the former one by that. */
static void open_store(void)
{
    ESP_ERROR_CHECK(nvs_flash_init());
    ESP_ERROR_CHECK(nvs_open("towline", NVS_READWRITE, &store));
}

const tl_port_kv *tl_esp_kv(void)
{
    static const tl_port_kv group = {NULL, get, set, erase, commit, erase_all};
    open_store();
    return &group;
}
