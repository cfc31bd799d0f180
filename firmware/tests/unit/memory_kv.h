/* A key-value store in memory: what was set is durable with the commit, and a restart forgets the rest. */
#ifndef TOWLINE_MEMORY_KV_H
#define TOWLINE_MEMORY_KV_H

#include "towline_port.h"

#include <string.h>

#define KV_KEYS 80u
#define KV_BYTES 128u

typedef struct {
    char key[TL_KV_KEY_MAX + 1];
    uint8_t bytes[KV_BYTES];
    size_t n;
} kv_pair;

typedef struct {
    tl_port_kv port;
    bool fails;       /* nothing is written any more */
    uint32_t commits;
    kv_pair set[KV_KEYS], kept[KV_KEYS];
} memory_kv;

static inline kv_pair *kv_find(memory_kv *kv, const char *key)
{
    for (size_t i = 0; i < KV_KEYS; i++) {
        if (strcmp(kv->set[i].key, key) == 0) {
            return &kv->set[i];
        }
    }
    return NULL;
}

static inline bool kv_get(void *with, const char *key, tl_out *value)
{
    const kv_pair *pair = kv_find(with, key);
    if (pair == NULL || value->cap - value->n < pair->n) {
        return false;
    }
    memcpy(value->at + value->n, pair->bytes, pair->n);
    value->n += pair->n;
    return true;
}

static inline bool kv_set(void *with, const char *key, tl_span value)
{
    memory_kv *kv = with;
    kv_pair *pair = kv_find(kv, key);
    pair = pair != NULL ? pair : kv_find(kv, "");
    if (kv->fails || pair == NULL || value.n > KV_BYTES || strlen(key) > TL_KV_KEY_MAX) {
        return false;
    }
    strcpy(pair->key, key);
    memcpy(pair->bytes, value.at, value.n);
    pair->n = value.n;
    return true;
}

static inline bool kv_erase(void *with, const char *key)
{
    kv_pair *pair = kv_find(with, key);
    if (pair != NULL) {
        memset(pair, 0, sizeof *pair);
    }
    return pair != NULL;
}

static inline bool kv_commit(void *with)
{
    memory_kv *kv = with;
    if (kv->fails) {
        return false;
    }
    kv->commits++;
    memcpy(kv->kept, kv->set, sizeof kv->kept);
    return true;
}

static inline void kv_restart(memory_kv *kv)
{
    kv->fails = false;
    memcpy(kv->set, kv->kept, sizeof kv->set);
}

static inline void kv_init(memory_kv *kv)
{
    memset(kv, 0, sizeof *kv);
    kv->port = (tl_port_kv){kv, kv_get, kv_set, kv_erase, kv_commit, NULL};
}

#endif
