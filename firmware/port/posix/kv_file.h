/* The key-value store as one file, replaced whole at each commit. */
#ifndef TOWLINE_KV_FILE_H
#define TOWLINE_KV_FILE_H

#include "towline_port.h"

#define TL_KV_FILE_KEYS 64u /* the firmware has some twenty */

typedef struct {
    char key[TL_KV_KEY_MAX + 1]; /* "": the place is free */
    uint16_t n;
    uint8_t value[TL_KV_VALUE_MAX];
} tl_kv_entry;

typedef struct {
    tl_port_kv port;
    int folder;
    tl_kv_entry *entry; /* TL_KV_FILE_KEYS of them */
} tl_kv_file;

/* The store `kv` in this folder, which stays open elsewhere; empty where there is none yet. NULL, or why it cannot be
 * read (a literal): then nothing is to be closed. */
const char *tl_kv_file_open(tl_kv_file *, int folder);
void tl_kv_file_close(tl_kv_file *);

#endif
