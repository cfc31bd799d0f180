#include "towline/configuration.h"

#include <string.h>

#include "towline/bytes.h"
#include "towline/sending.h"

#define STORED (8u + TL_CONFIG_SHA + 4u)

static const char key[] = "config";
static const char *const levels[] = {"error", "warning", "info", "debug"};

void tl_configuration_open(tl_configuration *c, const tl_port_kv *kv)
{
    uint8_t raw[STORED];
    tl_out out = {raw, 0, sizeof raw, false};
    memset(c, 0, sizeof *c);
    c->kv = kv;
    c->running.log_level = TL_LOG_LEVEL_OPEN;
    if (kv->get(kv->with, key, &out) && out.n == sizeof raw) {
        c->running.version = tl_u64(raw);
        memcpy(c->running.sha256, raw + 8, TL_CONFIG_SHA);
        c->running.health_every_s = raw[8 + TL_CONFIG_SHA];
        c->running.log_level = raw[9 + TL_CONFIG_SHA];
        c->running.report_s = tl_u16(raw + 10 + TL_CONFIG_SHA);
    }
    c->owes_report = c->running.version != 0;
}

static bool store(const tl_configuration *c, const tl_config_values *values)
{
    uint8_t raw[STORED];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_put_u64(&out, values->version);
    tl_put(&out, values->sha256, TL_CONFIG_SHA);
    tl_put_u8(&out, values->health_every_s);
    tl_put_u8(&out, values->log_level);
    tl_put_u16(&out, values->report_s);
    return c->kv->set(c->kv->with, key, (tl_span){raw, out.n}) && c->kv->commit(c->kv->with);
}

/* NULL, or what is wrong with it. */
static const char *take_member(tl_config_values *values, const tl_json *name, const tl_json *value)
{
    int64_t number;
    if (tl_json_says(name, tl_text("health_every_s"))) {
        if (!tl_json_whole(value, TL_HEALTH_LEAST_S, TL_HEALTH_MOST_S, &number)) {
            return "health_every_s: must be 1 to 60";
        }
        values->health_every_s = (uint8_t)number;
    } else if (tl_json_says(name, tl_text("report_s"))) {
        if (!tl_json_whole(value, TL_READINGS_LEAST_S, TL_READINGS_MOST_S, &number)) {
            return "report_s: must be 5 to 3600";
        }
        values->report_s = (uint16_t)number;
    } else if (tl_json_says(name, tl_text("log_level"))) {
        values->log_level = 0;
        while (values->log_level < 4 && !tl_json_says(value, tl_text(levels[values->log_level]))) {
            values->log_level++;
        }
        return values->log_level < 4 ? NULL : "log_level: must be debug, info, warning or error";
    } else {
        return "a member: not known here";
    }
    return NULL;
}

void tl_configuration_tell(tl_configuration *c, const tl_desired *desired)
{
    tl_span rest = desired->body.text;
    tl_json name, value;
    c->told = (tl_config_values){.version = desired->version, .log_level = TL_LOG_LEVEL_OPEN};
    memcpy(c->told.sha256, desired->sha256, TL_CONFIG_SHA);
    c->fault = NULL;
    while (c->fault == NULL && tl_json_next_member(&rest, &name, &value)) {
        c->fault = take_member(&c->told, &name, &value);
    }
    c->waits = true;
}

bool tl_configuration_run(tl_configuration *c, uint64_t now_ms)
{
    if (!c->waits || now_ms < c->next_at) {
        return false;
    }
    c->waits = false;
    c->next_at = now_ms + TL_CONFIG_EVERY_MS;
    c->last_told = c->told.version;
    c->owes_report = true;
    c->error = c->fault;
    if (c->told.version <= c->running.version) {
        const bool same = c->told.version == c->running.version &&
                          memcmp(c->told.sha256, c->running.sha256, TL_CONFIG_SHA) == 0;
        c->error = same ? NULL : "its version is not above the one that runs";
        return false;
    }
    if (c->error == NULL && !store(c, &c->told)) {
        c->error = "it cannot be stored";
    }
    if (c->error != NULL) {
        return false;
    }
    c->running = c->told;
    return true;
}

uint64_t tl_configuration_due(const tl_configuration *c)
{
    return c->waits ? c->next_at : TL_NEVER_DUE;
}

void tl_configuration_report(const tl_configuration *c, tl_out *out)
{
    const tl_reported_body body = {
        .version = c->running.version,
        .sha256 = c->running.version == 0 ? NULL : c->running.sha256,
        .told = c->last_told,
        .error = tl_text(c->error),
    };
    tl_put_reported_body(out, &body);
}
