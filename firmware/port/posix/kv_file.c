#include "kv_file.h"

#include "disk.h"
#include "towline/bytes.h"
#include "towline/crc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The file: magic; then keys (length, text, length of the value, value); then the CRC of all that. */
#define NAME "kv"
#define MAGIC 0x544C4B56u /* TLKV */
#define FILE_MAX (4u + TL_KV_FILE_KEYS * (1u + TL_KV_KEY_MAX + 2u + TL_KV_VALUE_MAX) + 4u)

static tl_kv_entry *find(const tl_kv_file *kv, const char *key)
{
    for (size_t i = 0; i < TL_KV_FILE_KEYS; i++) {
        if (strcmp(kv->entry[i].key, key) == 0) {
            return &kv->entry[i];
        }
    }
    return NULL;
}

static bool get(void *with, const char *key, tl_out *value)
{
    const tl_kv_entry *entry = find(with, key);
    if (entry == NULL || value->full || entry->n > value->cap - value->n) {
        return false;
    }
    tl_put(value, entry->value, entry->n);
    return true;
}

static bool set(void *with, const char *key, tl_span value)
{
    if (key[0] == '\0' || strlen(key) > TL_KV_KEY_MAX || value.n > TL_KV_VALUE_MAX) {
        return false;
    }
    tl_kv_entry *entry = find(with, key);
    if (entry == NULL && (entry = find(with, "")) == NULL) {
        return false;
    }
    memcpy(entry->key, key, strlen(key) + 1);
    entry->n = (uint16_t)value.n;
    if (value.n > 0) {
        memcpy(entry->value, value.at, value.n);
    }
    return true;
}

static bool erase(void *with, const char *key)
{
    tl_kv_entry *entry = key[0] == '\0' ? NULL : find(with, key);
    if (entry != NULL) {
        memset(entry, 0, sizeof *entry);
    }
    return true;
}

static void write_all(const tl_kv_file *kv, tl_out *out)
{
    tl_put_u32(out, MAGIC);
    for (size_t i = 0; i < TL_KV_FILE_KEYS; i++) {
        const tl_kv_entry *entry = &kv->entry[i];
        if (entry->key[0] != '\0') {
            tl_put_u8(out, (uint8_t)strlen(entry->key));
            tl_put_text(out, entry->key);
            tl_put_u16(out, entry->n);
            tl_put(out, entry->value, entry->n);
        }
    }
    tl_put_u32(out, tl_crc32(0, (tl_span){out->at, out->n}));
}

static bool commit(void *with)
{
    const tl_kv_file *kv = with;
    tl_out out = {malloc(FILE_MAX), 0, FILE_MAX, false};
    if (out.at == NULL) {
        return false;
    }
    write_all(kv, &out);
    const bool done = !out.full && tl_disk_replace(kv->folder, NAME, out.at, out.n);
    free(out.at);
    return done;
}

static bool erase_all(void *with)
{
    tl_kv_file *kv = with;
    memset(kv->entry, 0, TL_KV_FILE_KEYS * sizeof *kv->entry);
    return commit(kv);
}

/* --- opening --- */

static bool take_entry(tl_kv_file *kv, tl_span *rest)
{
    char key[TL_KV_KEY_MAX + 1] = "";
    const size_t key_n = tl_take(rest, 1).at[0];
    const tl_span text = tl_take(rest, key_n);
    const tl_span length = tl_take(rest, 2);
    if (key_n == 0 || key_n > TL_KV_KEY_MAX || text.n != key_n || length.n != 2) {
        return false;
    }
    memcpy(key, text.at, key_n);
    const tl_span value = tl_take(rest, tl_u16(length.at));
    return value.n == tl_u16(length.at) && set(kv, key, value);
}

static bool take_all(tl_kv_file *kv, tl_span whole)
{
    if (whole.n < 8 || tl_u32(whole.at) != MAGIC) {
        return false;
    }
    const tl_span checked = {whole.at, whole.n - 4};
    if (tl_u32(whole.at + checked.n) != tl_crc32(0, checked)) {
        return false;
    }
    tl_span rest = {whole.at + 4, checked.n - 4};
    while (rest.n > 0) {
        if (!take_entry(kv, &rest)) {
            return false;
        }
    }
    return true;
}

/* The whole file into `room`; false: it cannot be read, or is longer than any of ours. */
static bool read_file(int file, tl_out *room)
{
    for (;;) {
        const ssize_t n = read(file, room->at + room->n, room->cap - room->n);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n == 0 && room->n < room->cap;
        }
        room->n += (size_t)n;
    }
}

static const char *load(tl_kv_file *kv, tl_out *room)
{
    const int file = openat(kv->folder, NAME, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return errno == ENOENT ? NULL : "the store cannot be opened";
    }
    const bool whole = read_file(file, room);
    (void)close(file); /* it was only read */
    return whole && take_all(kv, (tl_span){room->at, room->n}) ? NULL : "the store is damaged";
}

const char *tl_kv_file_open(tl_kv_file *kv, int folder)
{
    *kv = (tl_kv_file){{kv, get, set, erase, commit, erase_all}, folder, calloc(TL_KV_FILE_KEYS, sizeof *kv->entry)};
    tl_out room = {malloc(FILE_MAX), 0, FILE_MAX, false};
    const char *why = kv->entry == NULL || room.at == NULL ? "no memory for the store" : load(kv, &room);
    free(room.at);
    if (why != NULL) {
        tl_kv_file_close(kv);
    }
    return why;
}

void tl_kv_file_close(tl_kv_file *kv)
{
    free(kv->entry);
    kv->entry = NULL;
}
