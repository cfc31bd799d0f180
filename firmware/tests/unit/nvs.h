/* A key-value store in memory that keeps as NVS does: what was set is there at once, whole, with the commit or before.
 * It can be made to fail from any of its changes on. */
#ifndef TOWLINE_NVS_H
#define TOWLINE_NVS_H

#include "towline_port.h"

#include <string.h>

#define NVS_KEYS 12u
#define NVS_VALUE 600u

typedef struct {
    char key[TL_KV_KEY_MAX + 1];
    size_t n;
    uint8_t value[NVS_VALUE];
} nvs_entry;

typedef struct {
    tl_port_kv port;
    uint32_t steps, fail_at; /* 0: never */
    nvs_entry entry[NVS_KEYS];
} nvs;

static inline nvs_entry *nvs_find(nvs *store, const char *key)
{
    for (size_t i = 0; i < NVS_KEYS; i++) {
        if (strcmp(store->entry[i].key, key) == 0) {
            return &store->entry[i];
        }
    }
    return NULL;
}

static inline bool nvs_works(nvs *store)
{
    store->steps++;
    return store->fail_at == 0 || store->steps < store->fail_at;
}

static inline bool nvs_get(void *with, const char *key, tl_out *value)
{
    const nvs_entry *entry = nvs_find(with, key);
    if (entry == NULL || entry->n > value->cap - value->n) {
        return false;
    }
    memcpy(value->at + value->n, entry->value, entry->n);
    value->n += entry->n;
    return true;
}

static inline bool nvs_set(void *with, const char *key, tl_span value)
{
    nvs_entry *entry = nvs_find(with, key);
    if (!nvs_works(with) || strlen(key) > TL_KV_KEY_MAX || value.n > NVS_VALUE) {
        return false;
    }
    entry = entry != NULL ? entry : nvs_find(with, "");
    if (entry == NULL) {
        return false;
    }
    memcpy(entry->key, key, strlen(key) + 1);
    memcpy(entry->value, value.at, value.n);
    entry->n = value.n;
    return true;
}

static inline bool nvs_erase(void *with, const char *key)
{
    nvs_entry *entry = nvs_find(with, key);
    if (nvs_works(with) && entry != NULL) {
        entry->key[0] = '\0';
        return true;
    }
    return entry == NULL;
}

static inline bool nvs_commit(void *with)
{
    return nvs_works(with);
}

static inline bool nvs_erase_all(void *with)
{
    nvs *store = with;
    memset(store->entry, 0, sizeof store->entry);
    return nvs_works(store);
}

static inline void nvs_init(nvs *store)
{
    memset(store, 0, sizeof *store);
    store->port = (tl_port_kv){store, nvs_get, nvs_set, nvs_erase, nvs_commit, nvs_erase_all};
}

#endif
