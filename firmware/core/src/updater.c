#include "towline/updater.h"

#include <string.h>

#include "towline/bytes.h"
#include "towline/url.h"

#define OK 200u

/* The version that was asked for, so that a later start knows whether it is the one that runs. */
static const char key[] = "update";

void tl_updater_init(tl_updater *u, const tl_port *port, tl_log_ring *log, tl_ota *ota, tl_commands *commands)
{
    memset(u, 0, sizeof *u);
    u->port = port;
    u->log = log;
    u->ota = ota;
    u->commands = commands;
}

static bool note(const tl_updater *u, tl_span version)
{
    const tl_port_kv *kv = u->port->kv;
    return kv->set(kv->with, key, version) && kv->commit(kv->with);
}

const char *tl_updater_begin(tl_updater *u, const tl_update *update)
{
    const tl_port_fetch *fetch = u->port->fetch;
    tl_url url;
    tl_version version;
    const tl_span wanted = {update->version, update->version_n};
    if (tl_url_read((tl_span){update->url, update->url_n}, TL_URL_GATEWAY, &url) != NULL) {
        return "the address must be https://";
    }
    if (!tl_version_read(wanted, &version)) {
        return "the version is none";
    }
    const char *why = tl_ota_begin(u->ota, update->size, false);
    if (why != NULL) {
        return why;
    }
    const tl_fetch_request request = {.to = {url.host, url.port, url.secure, url.path, {NULL, 0}}, .method = "GET"};
    u->number = note(u, wanted) ? fetch->start(fetch->with, &request) : 0;
    if (u->number == 0) {
        tl_ota_drop(u->ota);
        return "the device is busy";
    }
    u->wanted = update;
    u->port->crypto->sha256_begin(&u->digest);
    tl_log(u->log, TL_LOG_INFO, "fetches an update", wanted);
    return NULL;
}

/* The fetch is over; what it was told of, the digest, is given back. */
static void finish(tl_updater *u, uint8_t digest[TL_SHA256])
{
    u->port->crypto->sha256_end(&u->digest, digest);
    u->number = 0;
}

void tl_updater_stop(tl_updater *u)
{
    uint8_t digest[TL_SHA256];
    if (u->number != 0) {
        u->port->fetch->stop(u->port->fetch->with);
        finish(u, digest);
        tl_ota_drop(u->ota);
    }
}

static void fail(tl_updater *u, const char *why)
{
    tl_updater_stop(u);
    tl_log_text(u->log, TL_LOG_WARNING, "no update", why);
    tl_commands_update_over(u->commands, why);
}

static const char *check_head(const tl_updater *u, const tl_event *event)
{
    if (event->status != OK) {
        return "no image is at that address";
    }
    return event->length == TL_LENGTH_NOT_TOLD || event->length == u->wanted->size ? NULL : "it has another size";
}

static void whole(tl_updater *u)
{
    uint8_t digest[TL_SHA256];
    tl_version wanted;
    finish(u, digest);
    const char *why = NULL;
    if (memcmp(digest, u->wanted->sha256, sizeof digest) != 0) {
        why = "it is another image";
    } else if (!tl_version_read((tl_span){u->wanted->version, u->wanted->version_n}, &wanted) ||
               tl_version_compare(&u->ota->image.version, &wanted) != 0) {
        why = "it has another version";
    }
    if (why != NULL) {
        tl_ota_drop(u->ota);
    } else {
        why = tl_ota_end(u->ota);
    }
    if (why != NULL) {
        tl_log_text(u->log, TL_LOG_WARNING, "no update", why);
        tl_commands_update_over(u->commands, why);
        return;
    }
    tl_log_text(u->log, TL_LOG_INFO, "starts the update", NULL);
    u->port->sys->reboot(u->port->sys->with); /* the next start answers the command */
}

bool tl_updater_event(tl_updater *u, const tl_event *event)
{
    const tl_port_fetch *fetch = u->port->fetch;
    const char *why = NULL;
    if (u->number == 0 || event->number != u->number) {
        return false;
    }
    switch (event->kind) {
    case TL_EVENT_FETCH_HEAD:
        why = check_head(u, event);
        break;
    case TL_EVENT_FETCH_DATA:
        u->port->crypto->sha256_add(&u->digest, event->bytes);
        why = tl_ota_add(u->ota, event->bytes);
        fetch->release(fetch->with, event->bytes);
        break;
    case TL_EVENT_FETCH_END:
        whole(u);
        return true;
    default:
        tl_log_text(u->log, TL_LOG_WARNING, "fetching the update", event->why);
        why = "it could not be fetched";
        break;
    }
    if (why != NULL) {
        fail(u, why);
    }
    return true;
}

tl_update_outcome tl_updater_outcome(tl_updater *u)
{
    const tl_port_kv *kv = u->port->kv;
    uint8_t text[TL_UPDATE_VERSION_MAX];
    tl_out out = {text, 0, sizeof text, false};
    tl_version wanted;
    if (!kv->get(kv->with, key, &out) || !tl_version_read((tl_span){text, out.n}, &wanted) ||
        tl_version_compare(&wanted, &u->ota->version) != 0) {
        return TL_UPDATE_UNKNOWN;
    }
    switch (u->ota->state) {
    case TL_OTA_TRIAL:
        u->awaits_proof = true;
        return TL_UPDATE_ON_TRIAL;
    case TL_OTA_CONFIRMED: return TL_UPDATE_RUNS;
    case TL_OTA_ROLLED_BACK: return TL_UPDATE_ROLLED_BACK;
    default: return TL_UPDATE_UNKNOWN;
    }
}

void tl_updater_run(tl_updater *u)
{
    if (u->awaits_proof && u->ota->state == TL_OTA_CONFIRMED) {
        u->awaits_proof = false;
        tl_commands_update_over(u->commands, NULL);
    }
}
