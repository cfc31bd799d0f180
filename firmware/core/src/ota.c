#include "towline/ota.h"

#include "towline/bytes.h"

#include <string.h>

/* What is kept: format, state, slot of the update, floor, version of the update. */
#define KEY "ota"
#define FORMAT 1u
#define RECORD 19u

static bool keep(tl_ota *ota, tl_ota_state state, uint8_t slot)
{
    const tl_port_kv *kv = ota->means.kv;
    uint8_t bytes[RECORD];
    tl_out out = {bytes, 0, sizeof bytes, false};
    tl_put_u8(&out, FORMAT);
    tl_put_u8(&out, (uint8_t)state);
    tl_put_u8(&out, slot);
    tl_put_u32(&out, ota->floor);
    for (size_t i = 0; i < 3; i++) {
        tl_put_u32(&out, ota->version.part[i]);
    }
    ota->state = state;
    return kv->set(kv->with, KEY, (tl_span){bytes, sizeof bytes}) && kv->commit(kv->with);
}

/* What was kept last; false: nothing. */
static bool recall(tl_ota *ota, uint8_t *slot)
{
    const tl_port_kv *kv = ota->means.kv;
    uint8_t bytes[RECORD];
    tl_out out = {bytes, 0, sizeof bytes, false};
    if (!kv->get(kv->with, KEY, &out) || out.n != RECORD || bytes[0] != FORMAT || bytes[1] > TL_OTA_ROLLED_BACK) {
        return false;
    }
    ota->state = (tl_ota_state)bytes[1];
    *slot = bytes[2];
    ota->floor = tl_u32(bytes + 3);
    for (size_t i = 0; i < 3; i++) {
        ota->version.part[i] = tl_u32(bytes + 7 + 4 * i);
    }
    return true;
}

/* The port has marked it valid, now or before the power went. */
static void confirm(tl_ota *ota)
{
    if (ota->floor < ota->means.runs->security) {
        ota->floor = ota->means.runs->security;
    }
    (void)keep(ota, TL_OTA_CONFIRMED, ota->means.port->slot); /* if not: the next start comes here again */
}

void tl_ota_open(tl_ota *ota, const tl_ota_means *means)
{
    const tl_port_ota *port = means->port;
    uint8_t slot = 0;
    memset(ota, 0, sizeof *ota);
    ota->means = *means;
    const bool known = recall(ota, &slot);
    const bool open = ota->state == TL_OTA_VERIFIED || ota->state == TL_OTA_TRIAL; /* nothing was said of its end */
    if (port->on_trial(port->with)) {
        ota->version = means->runs->version;
        (void)keep(ota, TL_OTA_TRIAL, port->slot);
    } else if (known && open && slot != port->slot) {
        (void)keep(ota, TL_OTA_ROLLED_BACK, slot);
    } else if (known && open) {
        confirm(ota);
    }
}

const char *tl_ota_name(const tl_ota *ota)
{
    static const char *const NAMES[] = {"idle", "receiving", "verified", "trial", "confirmed", "rolled_back"};
    return NAMES[ota->state];
}

/* --- receiving --- */

static const char *refuse(tl_ota *ota, const char *why)
{
    tl_ota_drop(ota);
    return why;
}

const char *tl_ota_begin(tl_ota *ota, uint64_t size, bool force)
{
    switch (ota->state) {
    case TL_OTA_RECEIVING:
        return "Another image is coming.";
    case TL_OTA_VERIFIED:
        return "An update waits for the restart.";
    case TL_OTA_TRIAL:
        return "What runs now is on trial.";
    default:
        break;
    }
    if (size <= TL_IMAGE_HEAD || size - TL_IMAGE_HEAD > ota->means.port->largest) {
        return "It does not fit.";
    }
    ota->state = TL_OTA_RECEIVING;
    ota->told = (uint32_t)size;
    ota->received = 0;
    ota->force = force;
    return NULL;
}

/* The head is whole: nothing was written yet. */
static const char *judge(tl_ota *ota)
{
    const tl_port_ota *port = ota->means.port;
    const tl_image_rules rules = {
        ota->means.runs, ota->means.crypto, port->target, port->largest, ota->floor, ota->force,
    };
    const char *why = tl_image_judge(ota->head, &rules, &ota->image);
    if (why == NULL && ota->image.size != ota->told - TL_IMAGE_HEAD) {
        why = "It is not as long as it says.";
    }
    if (why == NULL && !port->begin(port->with, ota->image.size)) {
        why = "The flash does not take it.";
    }
    if (why != NULL) {
        ota->received = 0; /* the port has nothing to give up */
        return refuse(ota, why);
    }
    ota->means.crypto->sha256_begin(&ota->digest);
    return NULL;
}

static const char *add_body(tl_ota *ota, tl_span piece)
{
    const tl_port_ota *port = ota->means.port;
    if (!port->write(port->with, piece)) {
        return refuse(ota, "The flash does not take it.");
    }
    ota->means.crypto->sha256_add(&ota->digest, piece);
    ota->received += (uint32_t)piece.n;
    return NULL;
}

const char *tl_ota_add(tl_ota *ota, tl_span piece)
{
    if (ota->state != TL_OTA_RECEIVING) {
        return "No image is coming.";
    }
    if (piece.n > ota->told - ota->received) {
        return refuse(ota, "It is longer than it says.");
    }
    if (ota->received < TL_IMAGE_HEAD) {
        const tl_span part = tl_take(&piece, TL_IMAGE_HEAD - ota->received);
        memcpy(ota->head + ota->received, part.at, part.n);
        ota->received += (uint32_t)part.n;
        const char *why = ota->received == TL_IMAGE_HEAD ? judge(ota) : NULL;
        if (why != NULL) {
            return why;
        }
    }
    return piece.n > 0 ? add_body(ota, piece) : NULL;
}

const char *tl_ota_end(tl_ota *ota)
{
    const tl_port_ota *port = ota->means.port;
    uint8_t digest[TL_SHA256];
    if (ota->state != TL_OTA_RECEIVING) {
        return "No image is coming.";
    }
    if (ota->received != ota->told) {
        return refuse(ota, "It is shorter than it says.");
    }
    ota->means.crypto->sha256_end(&ota->digest, digest);
    ota->received = 0; /* the digest is ended */
    if (memcmp(digest, ota->image.digest, sizeof digest) != 0) {
        port->abort(port->with);
        return refuse(ota, "It is not what was signed.");
    }
    /* First what is to be told of it, then the one write that makes it boot. */
    ota->version = ota->image.version;
    if (!keep(ota, TL_OTA_VERIFIED, port->slot ^ 1u) || !port->finish(port->with)) {
        port->abort(port->with);
        (void)keep(ota, TL_OTA_ROLLED_BACK, port->slot ^ 1u);
        return "The flash does not take it.";
    }
    return NULL;
}

void tl_ota_drop(tl_ota *ota)
{
    uint8_t digest[TL_SHA256];
    if (ota->state != TL_OTA_RECEIVING) {
        return;
    }
    if (ota->received >= TL_IMAGE_HEAD) {
        ota->means.crypto->sha256_end(&ota->digest, digest); /* each that was begun needs its end */
        ota->means.port->abort(ota->means.port->with);
    }
    uint8_t slot;
    ota->state = TL_OTA_IDLE;
    (void)recall(ota, &slot); /* what there was to tell before */
}

/* --- on trial --- */

uint64_t tl_ota_run(tl_ota *ota, uint64_t now_ms, bool reached)
{
    const tl_port_ota *port = ota->means.port;
    if (ota->state != TL_OTA_TRIAL) {
        return UINT64_MAX;
    }
    ota->reached = ota->reached || reached;
    if (ota->reached && now_ms >= ota->means.steady_ms && port->mark_valid(port->with)) {
        confirm(ota);
        return UINT64_MAX;
    }
    if (now_ms >= ota->means.patience_ms) {
        port->rollback(port->with); /* a restart, which tells the rest */
        return UINT64_MAX;
    }
    return ota->reached && now_ms < ota->means.steady_ms ? ota->means.steady_ms : ota->means.patience_ms;
}
