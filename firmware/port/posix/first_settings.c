#include "first_settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"
#include "psa_crypto.h"
#include "srp6a.h"
#include "towline/bytes.h"
#include "towline/identity.h"
#include "towline/login.h"
#include "towline/panel.h"
#include "towline/provisioning.h"
#include "towline/settings.h"

#define ID_FILE "hardware_id"
#define RANDOM_ID 8u /* bytes */

static bool fail(const char *what, const char *why)
{
    fprintf(stderr, "towline-device: %s: %s\n", what, why);
    return false;
}

/* A whole small file; false: it cannot be read, or is longer. */
static bool read_file(int folder, const char *name, tl_out *to)
{
    const int file = openat(folder, name, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;
    if (file >= 0) {
        while (to->n < to->cap && (n = read(file, to->at + to->n, to->cap - to->n)) > 0) {
            to->n += (size_t)n;
        }
        close(file);
    }
    return n == 0;
}

static void trim(tl_out *text)
{
    while (text->n > 0 && (text->at[text->n - 1] == '\n' || text->at[text->n - 1] == '\r')) {
        text->n--;
    }
}

/* --- the hardware id: a chip has its MAC address --- */

static bool hardware_id(const tl_options *o, int folder, char id[TL_HARDWARE_ID_MAX + 1])
{
    tl_out out = {(uint8_t *)id, 0, TL_HARDWARE_ID_MAX, false};
    if (o->hardware_id != NULL) {
        tl_put_text(&out, o->hardware_id);
        out.n = out.full ? 0 : out.n;
    } else if (!read_file(folder, ID_FILE, &out)) {
        uint8_t random[RANDOM_ID];
        tl_psa_crypto()->random(random, sizeof random);
        out.n = 0;
        tl_put_text(&out, "sim-");
        tl_put_hex(&out, (tl_span){random, sizeof random});
        if (!tl_disk_replace(folder, ID_FILE, out.at, out.n)) {
            return fail(ID_FILE, "cannot be written");
        }
    }
    id[out.n] = '\0';
    return tl_is_name((tl_span){out.at, out.n}) || fail("--hardware-id", "is not [a-z0-9_-]{1,64}");
}

/* --- settings --- */

static bool set(tl_settings *s, tl_setting setting, const char *option, tl_span text)
{
    const char *wrong = tl_settings_set_text(s, setting, text);
    return wrong == NULL || fail(option, wrong);
}

static bool set_token(tl_settings *s, const char *path)
{
    uint8_t room[TL_SETTING_TOKEN_MAX + 2];
    tl_out token = {room, 0, sizeof room, false};
    if (!read_file(AT_FDCWD, path, &token)) {
        if (s->token[0] != '\0') {
            return true; /* an earlier start has read it, and whoever wrote it took it away */
        }
        return fail(path, "is no readable registration token");
    }
    trim(&token);
    return set(s, TL_SETTING_TOKEN, "--token-file", (tl_span){token.at, token.n});
}

static bool cloud(const tl_options *o, const tl_port_kv *kv)
{
    tl_settings_store store;
    tl_settings s;
    tl_settings_load(&store, kv, &s);
    if ((o->gateway != NULL && !set(&s, TL_SETTING_GATEWAY, "--gateway", tl_text(o->gateway))) ||
        (o->name != NULL && !set(&s, TL_SETTING_NAME, "--name", tl_text(o->name))) ||
        (o->token_file != NULL && !set_token(&s, o->token_file))) {
        return false;
    }
    return tl_settings_commit(&store, &s) || fail(o->data, "the settings cannot be written");
}

static bool gateway_ca(const char *path, const tl_port_kv *kv)
{
    static uint8_t room[TL_CA_MAX + 1];
    tl_out ca = {room, 0, sizeof room, false};
    if (!read_file(AT_FDCWD, path, &ca)) {
        return fail(path, "is no readable CA certificate of at most 2048 bytes");
    }
    return (kv->set(kv->with, "gateway_ca", (tl_span){ca.at, ca.n}) && kv->commit(kv->with)) ||
           fail(path, "the CA cannot be kept");
}

static bool pin(const char *digits, const tl_port_kv *kv)
{
    tl_login login;
    tl_login_init(&login, tl_psa_crypto(), NULL);
    if (!tl_login_set_pin(&login, tl_text(digits))) {
        return fail("--pin", "is not eight digits");
    }
    uint8_t record[TL_SRP_RECORD];
    return (kv->set(kv->with, TL_PIN_KEY, (tl_span){login.record, TL_LOGIN_RECORD}) &&
            tl_srp_new_record(tl_text(TL_PROVISIONING_USER), tl_text(digits), record) &&
            kv->set(kv->with, TL_PROVISIONING_KEY, (tl_span){record, sizeof record}) && kv->commit(kv->with)) ||
           fail("--pin", "cannot be kept");
}

bool tl_is_enrolled(const tl_port_kv *kv)
{
    uint8_t room[TL_KV_VALUE_MAX];
    tl_out identity = {room, 0, sizeof room, false};
    return kv->get(kv->with, "identity", &identity);
}

bool tl_first_settings(const tl_options *o, const tl_port_kv *kv, int folder, char id[TL_HARDWARE_ID_MAX + 1])
{
    if (tl_psa_crypto() == NULL) {
        return fail("libmbedcrypto", "does not start");
    }
    const bool given = o->gateway != NULL || o->name != NULL || o->token_file != NULL;
    return hardware_id(o, folder, id) && (o->pin == NULL || pin(o->pin, kv)) &&
           (o->gateway_ca_file == NULL || gateway_ca(o->gateway_ca_file, kv)) &&
           (tl_is_enrolled(kv) || !given || cloud(o, kv));
}
